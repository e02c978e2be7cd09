"""What the host sees of the plugin: info, probe, devices, support, options."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest
import torch

from hardpoint import (
    Artifact,
    ArtifactError,
    CompileError,
    CompileOptions,
    ConfigError,
    ProbeRequest,
)
from hardpoint.planning import compute_nodes
from hardpoint_cpu import host, plugin
from hardpoint_cpu.options import Options

LIGHT = """
import sys
from hardpoint import ProbeRequest
from hardpoint_cpu import plugin
info = plugin.hardpoint_backend_info()
probe = plugin.hardpoint_backend_probe(ProbeRequest())
assert "torch" not in sys.modules
print(probe.available, probe.devices[0].id, probe.notes)
"""


def child(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_entry_point_is_named_as_the_provider():
    [found] = entry_points(group="hardpoint.backend.v1", name="cpu")
    assert found.load() is plugin


def test_info_and_probe_import_no_torch():
    done = child(LIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True 0")


def test_without_a_compiler_the_probe_says_what_is_lost():
    done = child(LIGHT, PATH="", CXX="")
    assert done.stdout == (
        "True 0 (\"modes inductor and aot cannot compile here: the C++ compiler 'g++' is not "
        'on PATH",)\n'
    )


def test_a_compiler_named_in_cxx_that_is_not_there_is_named():
    assert (
        "the C++ compiler 'no-such-c++' named in CXX is not on PATH"
        in child(LIGHT, CXX="no-such-c++").stdout
    )


@pytest.mark.parametrize("mode", ["inductor", "aot"])
def test_compiling_without_a_compiler_tells_how_to_get_one(mode, case, compiled, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(CompileError) as caught:
        compiled(case("mlp").program(), mode=mode)
    assert str(caught.value).splitlines()[0] == "the segment cannot be compiled on this machine"
    assert "cause: the C++ compiler 'g++' is not on PATH" in str(caught.value)
    assert (
        "remedy: install a C++ compiler (Debian: apt install g++), or name yours in CXX; "
        "mode 'eager' needs none" in str(caught.value)
    )


def test_the_device_is_this_processor(backend):
    [device] = backend.devices()
    assert device.id == "0"
    assert device.torch_device == "cpu"
    assert device.name
    assert device.memory is None or device.memory > 2**20
    assert device.properties["cores"] >= 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mod": "aot"}, ["the cpu backend has no option 'mod'", "did you mean 'mode'?"]),
        ({"mode": "aott"}, ["mode 'aott' does not exist", "did you mean 'aot'?"]),
        ({"mode": 3}, ["mode 3 does not exist", "known: aot, eager, inductor"]),
        ({"mode": "aot", "freezing": "yes"}, ["option freezing is 'yes'", "give true or false"]),
        ({"freezing": True}, ["option freezing has no meaning in mode 'eager'"]),
        ({"max_autotune": True}, ["option max_autotune has no meaning in mode 'eager'"]),
        ({"mode": "aot", "max_autotune": True}, ["option max_autotune needs freezing"]),
        ({"threads": 0}, ["option threads is 0", "give a number of threads, 1 or more"]),
        ({"threads": True}, ["option threads is True"]),
        ({"group_size": 32}, ["group_size has no meaning in precision 'fp32'", "'int4w'"]),
        ({"activation_scales": "static"}, ["activation_scales has no meaning in precision 'fp32'"]),
    ],
)
def test_a_wrong_option_is_explained(given, words):
    with pytest.raises(ConfigError) as caught:
        Options.parse(given)
    for part in [*words, "provider: backend:cpu (from hardpoint-cpu"]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("given", "precision", "words"),
    [
        ({"group_size": 16}, "int4w", ["option group_size is 16", "give 32, 64 or 128"]),
        ({"activation_scales": "fixed"}, "int8", ["activation_scales 'fixed' does not exist"]),
    ],
)
def test_a_wrong_option_of_a_precision_is_explained(given, precision, words):
    with pytest.raises(ConfigError) as caught:
        Options.parse(given, precision)
    for part in words:
        assert part in str(caught.value)


def test_int8_is_compiled_and_frozen_unless_said_otherwise():
    assert Options.parse({}, "int8") == Options(mode="aot", freezing=True)
    assert Options.parse({"mode": "inductor"}, "int8").freezing
    assert Options.parse({}, "int8w") == Options()


def test_every_variant_is_a_set_of_options():
    variants = plugin.hardpoint_backend_info().variants
    assert {v["mode"] for v in variants.values()} == {"eager", "inductor", "aot"}
    assert len({Options.parse(v) for v in variants.values()}) == len(variants)


def test_memory_in_parts_is_counted_and_told(tmp_path, monkeypatch):
    for name in ("node0", "node1", "node12"):
        (tmp_path / name).mkdir()
    (tmp_path / "nodemask").touch()
    assert host.numa_nodes(tmp_path) == 3
    assert host.numa_nodes(tmp_path / "none") == 1
    monkeypatch.setattr(host, "NODES", tmp_path)
    [note] = plugin.hardpoint_backend_probe(ProbeRequest()).notes[-1:]
    assert note == (
        "memory is in 3 NUMA nodes: keep the process in one (numactl --cpunodebind=0 --membind=0), "
        "with no more threads than that node has cores, or a model (option numa)"
    )


def test_every_declared_option_exists():
    assert set(plugin.hardpoint_backend_info().options) == set(Options.__slots__)


@pytest.mark.parametrize("config", [{"operator": []}, {"operators": "torchvision"}])
def test_a_wrong_configuration_is_explained(config):
    with pytest.raises(ConfigError, match="configuration"):
        plugin.hardpoint_backend_open(config)


def test_an_undeclared_precision_is_refused(case, compiled):
    with pytest.raises(CompileError, match="does not compute in fp16"):
        compiled(case("mlp").program(), "fp16")


def test_a_foreign_artifact_is_refused(backend):
    with pytest.raises(ArtifactError, match="'openvino/1' is not one that the cpu backend reads"):
        backend.load(Artifact(format="openvino/1"), backend.devices()[0])


@pytest.mark.parametrize("name", ["bert", "conv", "lstm", "cond", "item", "whole numbers"])
def test_every_compute_node_of_a_model_is_answered_once_and_supported(name, case, backend):
    program = case(name).program()
    answer = backend.support(program, backend.devices()[0])
    assert answer.supported == {node.name for node in compute_nodes(program)}
    assert answer.unsupported == {}


@pytest.fixture
def doubling():
    """A custom operator, as a vendor's library would register it."""
    with torch.library._scoped_library("hardpoint_cpu_test", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: x * 2, "CompositeExplicitAutograd")
        library.impl("double", torch.empty_like, "Meta")
        yield torch.ops.hardpoint_cpu_test.double.default


def test_a_custom_operator_is_not_supported_unless_its_namespace_is_allowed(
    doubling, backend, export
):
    x = torch.ones(2)
    program = export(lambda x: (doubling(x + 1),), x)
    answer = backend.support(program, backend.devices()[0])
    assert answer.supported == {"add"}
    assert answer.unsupported == {
        "double": "hardpoint_cpu_test.double.default is a custom operator of "
        "'hardpoint_cpu_test', which was not allowed: open the backend with the configuration "
        "operators=['hardpoint_cpu_test']"
    }
    allowing = plugin.hardpoint_backend_open({"operators": ["hardpoint_cpu_test"]})
    device = allowing.devices()[0]
    assert allowing.support(program, device).unsupported == {}
    artifact = allowing.compile(program, device, CompileOptions())
    assert allowing.load(artifact, device)(x)[0].tolist() == [4, 4]
    with pytest.raises(CompileError) as caught:
        allowing.compile(program, device, CompileOptions(backend={"mode": "aot"}))
    assert "node 'double' cannot be compiled ahead of time" in str(caught.value)
    with pytest.raises(ArtifactError, match="operators=\\['hardpoint_cpu_test'\\]"):
        backend.load(artifact, device)


def test_unusual_tensors_are_unsupported_with_a_reason(backend, export):
    cases = {
        "a tensor of it lives on meta": (lambda x: (x.to("meta"),), torch.ones(2)),
        "has the layout torch.sparse_coo": (lambda x: (x.to_sparse(),), torch.ones(2)),
    }
    for reason, (function, x) in cases.items():
        answer = backend.support(export(function, x), backend.devices()[0])
        assert any(reason in found for found in answer.unsupported.values()), reason


def test_a_node_that_writes_in_place_is_unsupported(backend):
    class Model(torch.nn.Module):
        def forward(self, x):
            y = x * 2
            y.add_(1)
            return (y,)

    program = torch.export.export(Model(), (torch.ones(2),), strict=False)
    answer = backend.support(program, backend.devices()[0])
    assert "writes into its arguments" in answer.unsupported["add_"]


def test_what_a_branch_holds_counts(doubling, backend, export):
    def choose(x):
        return (torch.cond(x.sum() > 0, lambda y: doubling(y), lambda y: y + 1, (x,)),)

    answer = backend.support(export(choose, torch.ones(2)), backend.devices()[0])
    [reason] = answer.unsupported.values()
    assert reason.startswith("in its branch or body, double: hardpoint_cpu_test.double.default")


def test_a_program_with_mutations_is_refused(compiled):
    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count.add_(1)
            return (x + self.count,)

    program = torch.export.export(Counter(), (torch.ones(2),), strict=False).run_decompositions({})
    with pytest.raises(CompileError, match="is a buffer mutation"):
        compiled(program)


def test_the_instruction_sets_are_named_as_aotinductor_names_them():
    if host.machine() == "x86_64" and "avx2" in host._cpuinfo().get("flags", ""):
        assert "AVX2" in host.isa()
    assert host.isa() <= host._ISA_FLAGS.keys()


def test_an_operator_without_a_cpu_kernel_is_unsupported(backend, export):
    program = export(lambda x: (x + 1,), torch.ones(2))
    node = next(n for n in program.graph.nodes if n.name == "add")
    node.target = torch.ops.aten.cudnn_convolution.default
    answer = backend.support(program, backend.devices()[0])
    assert "has no CPU kernel of aten.cudnn_convolution.default" in answer.unsupported["add"]


def test_what_another_device_s_backend_asks_of_these_modules_is_said_in_its_name():
    from hardpoint_cpu import eager
    from hardpoint_cpu.origin import speaking_as

    with speaking_as("backend:npu", "acme 2.0"), pytest.raises(ArtifactError) as caught:
        eager.file(Artifact(format="acme/1"), "graph.json")
    assert "provider: backend:npu (from acme 2.0)" in str(caught.value)


def test_a_device_without_a_kernel_or_a_dtype_gets_that_as_the_reason(export):
    from hardpoint_cpu.operators import Operators
    from hardpoint_cpu.place import Place
    from hardpoint_cpu.support import support

    fallback = Place(
        torch.device("mps"), "GPU", "MPS", falls_back=True, lacks={torch.float64: "no float64"}
    )
    program = export(lambda x: (x.double(), torch.tanh(x)), torch.ones(2))
    answer = support(program, Operators(), fallback)
    assert sorted(answer.unsupported.values())[-1] == "no float64"


def test_what_a_graph_makes_it_makes_where_it_is_read_for(export):
    from hardpoint_cpu import emit, wire, wire_read
    from hardpoint_cpu.operators import Operators
    from hardpoint_cpu.segment import from_program

    program = export(lambda x: (x + torch.arange(3),), torch.ones(3))
    data = wire.encode(from_program(program), Operators())
    recipe = wire_read.decode(data, Operators(), torch.device("meta"))
    [found] = emit.function(recipe, {})(torch.ones(3, device="meta"))
    assert found.device.type == "meta"
