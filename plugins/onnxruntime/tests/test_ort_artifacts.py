"""What a segment becomes, where it opens, and what is said of it."""

import json
import operator
import os
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import ort_programs as shared
import pytest
import torch

import hardpoint as hp
from hardpoint import ArtifactError, CompileOptions
from hardpoint_onnxruntime import artifact


@pytest.fixture(scope="module")
def made(backend, cpu):
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64).eval()
    return layer, backend.compile(shared.exported(layer, torch.randn(2, 64)), cpu, CompileOptions())


def test_weights_stay_the_models_own_and_out_of_the_file(made):
    layer, artifact = made
    assert artifact.weights["weight"].data_ptr() == layer.weight.data_ptr()
    assert len(artifact.files["model.onnx"]) < 3000
    assert str(Path.cwd()).encode() not in bytes(artifact.files["model.onnx"])
    json.dumps(artifact.metadata)


@pytest.mark.parametrize(
    ("change", "what", "cause"),
    [
        ({"onnxruntime": "1.0"}, "another version of ONNX Runtime", "it was tried and verified with 1.0"),
        ({"provider": "CUDAExecutionProvider"}, "another execution provider", "it was compiled for CUDAExecutionProvider, CPU is"),
        ({"inputs": [["x", "float64"]]}, "do not belong together", "the model takes"),
        ({"outputs": 7}, "metadata are damaged", "TypeError: it has no outputs"),
        ({"options": {"threads": "all"}}, "option threads is 'all'", ""),
    ],
)  # fmt: skip
def test_what_was_not_made_for_this_is_refused(change, what, cause, made, backend, cpu):
    other = replace(made[1], metadata={**made[1].metadata, **change})
    with pytest.raises(hp.HardpointError) as refused:
        backend.load(other, cpu)
    assert what in refused.value.what
    assert cause in refused.value.cause
    assert refused.value.remedy


def test_results_of_an_operator_that_nobody_uses_are_not_held_against_it(backend, cpu, tmp_path):
    """PyTorch's reader picks all three results of a batch norm; ONNX has one of them."""
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).eval()
    program = hp.capture(model, (torch.randn(1, 3, 8, 8),))
    torch.export.save(program.exported, tmp_path / "model.pt2")
    read = torch.export.load(tmp_path / "model.pt2")
    assert sum(node.target is operator.getitem for node in read.graph.nodes) == 3
    assert dict(backend.support(read, cpu).unsupported) == {}


def test_a_missing_weight_is_named(made, backend, cpu):
    with pytest.raises(ArtifactError, match="the artifact lacks the weight 'weight'"):
        backend.load(replace(made[1], weights={}), cpu)


def test_what_the_runtime_does_is_read_back(made, backend, cpu):
    run = backend.load(made[1], cpu)
    facts = run.facts()
    assert facts["precision"] == "fp32"
    assert list(facts["providers"]) == ["CPUExecutionProvider"]
    assert facts["fallback_nodes"] == []
    assert facts["spinning"] is False
    assert facts["threads"] == torch.get_num_threads()
    run.close()
    run.close()
    with pytest.raises(RuntimeError, match="the executable was closed"):
        run(torch.randn(2, 64))


def test_threads_and_levels_are_the_callers(backend, cpu):
    program = shared.exported(torch.relu, torch.randn(3))
    options = {"threads": 1, "optimization": "disabled", "execution": "parallel", "spinning": True}
    run = backend.load(backend.compile(program, cpu, CompileOptions("fp32", (), options)), cpu)
    assert run.facts()["threads"] == 1
    assert run.facts()["spinning"] is True
    assert run(-torch.ones(3))[0].tolist() == [0, 0, 0]


GREEDY = """
import resource, sys
import torch
import hardpoint as hp
model = hp.load(sys.argv[1])
model(torch.ones(2, 64))
x = torch.ones(1 << 21, 64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 28), resource.RLIM_INFINITY))
try:
    model(x)
except hp.HardpointError as error:
    print(type(error).__name__, error.provider)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_runs_out_is_a_fault_that_a_fallback_can_act_on(made, registry, tmp_path):
    program = hp.capture(
        made[0], (torch.randn(2, 64),), dynamic={"input": {0: "rows"}}, registry=registry
    )
    plan = hp.plan(program, targets=["onnxruntime"], registry=registry)
    hp.compile(plan, registry=registry).save(tmp_path / "layer.pt2")
    done = subprocess.run(
        [sys.executable, "-c", GREEDY, tmp_path / "layer.pt2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == "OutOfMemory backend:onnxruntime\n", done.stderr


COLD = """
import sys, time
import torch
import hardpoint as hp
model = hp.load(sys.argv[1])
assert float((model(torch.ones(2, 64)) - torch.load(sys.argv[2])).abs().max()) < 1e-5
heavy = {"onnx", "onnx_ir", "onnxscript", "torch.onnx._internal.exporter", "torch._inductor"}
print(sorted(heavy & set(sys.modules)))
"""


def test_a_package_opens_without_the_exporter(made, registry, tmp_path):
    layer = made[0]
    program = hp.capture(layer, (torch.randn(2, 64),), registry=registry)
    plan = hp.plan(program, targets=["onnxruntime"], registry=registry)
    hp.compile(plan, registry=registry).save(tmp_path / "layer.pt2")
    torch.save(layer(torch.ones(2, 64)).detach(), tmp_path / "want.pt")
    done = subprocess.run(
        [sys.executable, "-c", COLD, tmp_path / "layer.pt2", tmp_path / "want.pt"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


FORKED = """
import os, sys
import torch
import hardpoint as hp
model = hp.load(sys.argv[1])
model(torch.ones(2, 64))
child = os.fork()
if not child:
    try:
        model(torch.ones(2, 64))
    except Exception as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told_and_does_not_hang(made, registry, tmp_path):
    program = hp.capture(made[0], (torch.randn(2, 64),), registry=registry)
    plan = hp.plan(program, targets=["onnxruntime"], registry=registry)
    hp.compile(plan, registry=registry).save(tmp_path / "layer.pt2")
    done = subprocess.run(
        [sys.executable, "-c", FORKED, tmp_path / "layer.pt2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout.endswith("\n0\n"), done.stderr
    assert "start it with 'spawn' and load there" in done.stdout


def test_no_file_of_the_working_folder_becomes_a_weight(made, backend, cpu, tmp_path, monkeypatch):
    # The model names a file for its weights; in a damaged or forged artifact nobody hands them over.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").write_bytes(bytes(64 * 64 * 4))
    forged = replace(made[1], weights={}, metadata={**made[1].metadata, "external": []})
    with pytest.raises(ArtifactError, match="ONNX Runtime does not open the model"):
        backend.load(forged, cpu)


def test_eight_bit_weights_do_not_open_where_their_products_would_overflow(
    made, backend, cpu, monkeypatch
):
    whole = replace(made[1], metadata={**made[1].metadata, "full_bytes": True})
    monkeypatch.setattr(artifact, "has_vnni", lambda: True)
    backend.load(whole, cpu).close()
    monkeypatch.setattr(artifact, "has_vnni", lambda: False)
    with pytest.raises(ArtifactError) as refused:
        backend.load(whole, cpu)
    assert refused.value.what == "the artifact's int8 numbers are for a processor with VNNI"
    assert refused.value.remedy == "compile the segment again for this device"


def test_a_segment_without_inputs_gives_its_constants(opened):
    table = torch.randn(3, 4)
    assert torch.equal(opened(shared.exported(lambda: table[1:].t()))()[0], table[1:].t())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and madvise(2) is Linux's")
def test_weights_of_a_loaded_package_are_not_in_memory_twice(tmp_path):
    """ONNX Runtime packs them anew; what was mapped of the file is given back to the system."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(2048, 2048, bias=False).eval()
    x = torch.randn(2, 2048)
    compiled = hp.compile(hp.capture(layer, (x,)), targets="onnxruntime")
    path = compiled.save(tmp_path / "large.pt2")
    compiled.close()
    with closing(hp.load(path)) as model:
        torch.testing.assert_close(model(x), layer(x), atol=1e-4, rtol=1e-4)
        assert shared.resident_of(path) < layer.weight.nbytes / 4
        torch.testing.assert_close(model(x), layer(x), atol=1e-4, rtol=1e-4)
        again = model.save(tmp_path / "again.pt2")  # from pages that come again from the file
    with closing(hp.load(again)) as model:
        torch.testing.assert_close(model(x), layer(x), atol=1e-4, rtol=1e-4)
