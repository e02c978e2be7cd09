"""int8w and int4w: weights held in integers, arithmetic in bfloat16, and nothing left unsaid."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st

from hardpoint import ArtifactError, CompileError, CompileOptions
from hardpoint_cpu import plugin

pytest.importorskip("torchao")
LIMIT = {"int8w": 2e-2, "int4w": 1.5e-1}  # of the largest result


class Decoder(torch.nn.Module):
    """What language models are made of: an embedding, linear layers, a shared output matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(96, 64)
        self.up = torch.nn.Linear(64, 128)
        self.down = torch.nn.Linear(128, 64, bias=False)
        self.norm = torch.nn.LayerNorm(64)
        self.head = torch.nn.Linear(64, 96, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        x = self.embed(ids)
        return self.head(self.norm(x + self.down(torch.nn.functional.silu(self.up(x)))))


class Products(torch.nn.Module):
    """Layers as GPT-2 writes them: the weight on the right, not turned."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(32, 48) / 6)
        self.other = torch.nn.Parameter(torch.randn(48, 16) / 7)
        self.bias = torch.nn.Parameter(torch.randn(48))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight) @ self.other


def program(model, *inputs, dynamic=None):
    torch.manual_seed(0)
    exported = torch.export.export(model.eval(), inputs, dynamic_shapes=dynamic, strict=False)
    return exported.run_decompositions({})


def seeded(kind):
    torch.manual_seed(0)
    return kind().eval()


def error(found, wanted) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def size(weights) -> int:
    return sum(t.numel() * t.element_size() for t in weights.values())


@pytest.mark.parametrize("precision", ["int8w", "int4w"])
def test_the_numbers_are_the_models_within_what_the_integers_hold(precision, build):
    model = seeded(Decoder)
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=64)
    ids = torch.randint(0, 96, (3, 5))
    executable = build(program(model, ids, dynamic={"ids": {0: batch, 1: length}}), precision)
    for shape in ((3, 5), (1, 1), (7, 40)):
        ids = torch.randint(0, 96, shape)
        with torch.no_grad():
            wanted = model(ids)
        found = executable(ids)[0]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert error(found, wanted) < LIMIT[precision]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_an_embedding_takes_indices_of_either_width(dtype, build):
    model, ids = torch.nn.Embedding(10, 6).eval(), torch.tensor([[0, 9, 3]], dtype=dtype)
    executable = build(program(model, ids), "int8w")
    with torch.no_grad():
        assert error(executable(ids)[0], model(ids)) < LIMIT["int8w"]
    with pytest.raises(IndexError):
        executable(ids + 1)


@pytest.mark.parametrize("precision", ["int8w", "int4w"])
@pytest.mark.parametrize("mode", [{"mode": "inductor"}, {"mode": "aot"},
                                  {"mode": "aot", "freezing": True}])  # fmt: skip
@pytest.mark.slow
def test_compiled_modes_hold_the_same_integers(precision, mode, backend, compiled):
    model, ids = seeded(Decoder), torch.randint(0, 96, (1, 4))
    made = program(model, ids)
    eager = compiled(made, precision)
    artifact = compiled(made, precision, **mode)
    device = backend.devices()[0]
    wanted, found = (backend.load(a, device)(ids)[0] for a in (eager, artifact))
    assert error(found, wanted) < LIMIT["int8w"]
    if not mode.get("freezing"):
        integers = {n for n, t in eager.weights.items() if not t.is_floating_point()}
        held = {n for n, t in artifact.weights.items() if not t.is_floating_point()}
        assert integers == {n for n in held if not n.startswith("@constant")}  # Inductor's own


def test_the_artifact_holds_integers_and_a_quarter_of_the_bytes(compiled):
    model = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(3)))
    made = program(model, torch.randn(1, 256))
    whole, w8, w4 = (size(compiled(made, p).weights) for p in ("fp32", "int8w", "int4w"))
    assert w8 < 0.26 * whole
    assert w4 < 0.145 * whole
    dtypes = {n: t.dtype for n, t in compiled(made, "int8w").weights.items() if n[0] == "0"}
    assert dtypes == {
        "0.weight@int8": torch.int8,
        "0.weight@int8-scale@bf16": torch.bfloat16,
        "0.bias@bf16": torch.bfloat16,
    }


def test_a_shared_matrix_is_held_once(compiled):
    weights = compiled(program(seeded(Decoder), torch.tensor([[1, 2]])), "int8w").weights
    assert [n for n, t in weights.items() if t.shape == (96, 64)] == ["embed.weight@int8"]


def test_facts_tell_what_is_held_how(build):
    facts = build(program(seeded(Decoder), torch.tensor([[1, 2]])), "int4w").facts()
    assert facts["precision"] == "int4w"
    assert facts["quantized"] == {"int8": 2, "int4": 2}  # the shared matrix is in int8
    assert facts["float_nodes"] == {}
    assert facts["mode"] == "eager"
    assert facts["threads"] == torch.get_num_threads()
    assert facts["isa"] == facts["int4_layout"] == torch.backends.cpu.get_cpu_capability()


def test_layers_that_stay_in_floating_point_are_named_with_the_reason(case, build):
    facts = build(case("conv").program(), "int8w").facts()
    assert facts["quantized"] == {"int8": 1}
    assert facts["float_nodes"] == {
        "conv2d": "there are weight-only kernels for linear layers and embeddings only"
    }


def test_a_weight_with_nan_stays_and_so_does_its_nan(build):
    model = torch.nn.Linear(32, 16)
    with torch.no_grad():
        model.weight[3, 4] = float("nan")
    executable = build(program(model, torch.randn(2, 32)), "int8w")
    assert executable.facts()["float_nodes"] == {"linear": "its weight holds NaN or infinity"}
    assert executable.facts()["precision"] == "bf16"
    assert executable(torch.randn(2, 32))[0].isnan().any(0).nonzero().tolist() == [[3]]


def test_shapes_that_int4_kernels_do_not_take_are_held_in_int8(build):
    model = torch.nn.Sequential(torch.nn.Linear(64, 24), torch.nn.Linear(24, 10)).eval()
    x = torch.randn(3, 64)
    executable = build(program(model, x), "int4w")
    assert executable.facts()["quantized"] == {"int8": 2}
    assert executable.facts()["precision"] == "int8w"
    with torch.no_grad():
        assert error(executable(x)[0], model(x)) < LIMIT["int8w"]


def test_a_program_without_layers_says_that_nothing_is_quantized(case, build):
    facts = build(case("whole numbers").program(), "int8w").facts()
    assert "quantized" not in facts
    assert facts["precision"] in ("fp32", "bf16")


@pytest.mark.parametrize("precision", ["int8w", "int4w"])
def test_weights_on_the_right_of_a_product_are_layers_too(precision, build):
    model, x = seeded(Products), torch.randn(3, 32)
    executable = build(program(model, x), precision)
    assert sum(executable.facts()["quantized"].values()) == 2
    with torch.no_grad():
        assert error(executable(x)[0], model(x)) < LIMIT[precision]


@settings(max_examples=12, deadline=None)
@given(
    leading=st.lists(st.integers(0, 4), max_size=3),
    columns=st.sampled_from([1, 7, 32, 64]),
    rows=st.sampled_from([1, 5, 16, 48]),
    bias=st.booleans(),
    precision=st.sampled_from(["int8w", "int4w"]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_linear_layers_of_any_shape(leading, columns, rows, bias, precision, dtype):
    torch.manual_seed(1)
    model = torch.nn.Linear(columns, rows, bias=bias).to(dtype).eval()
    x = torch.randn(*leading, columns).to(dtype)
    backend = plugin.hardpoint_backend_open({})
    device = backend.devices()[0]
    options = CompileOptions(precision=precision)
    found = backend.load(backend.compile(program(model, x), device, options), device)(x)[0]
    with torch.no_grad():
        wanted = model(x)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    scale = max(1.0, wanted.float().abs().max().item()) if wanted.numel() else 1.0
    if wanted.numel():
        assert (found.float() - wanted.float()).abs().max().item() < LIMIT[precision] * scale


def test_inputs_may_lie_as_they_like(build):
    model, x = torch.nn.Linear(32, 16).eval(), torch.randn(32, 4).t()
    executable = build(program(model, torch.randn(4, 32)), "int8w")
    assert torch.equal(executable(x)[0], executable(x.contiguous())[0])


def test_int4_weights_packed_for_other_kernels_are_refused(backend, compiled):
    artifact = compiled(program(torch.nn.Linear(64, 16), torch.randn(1, 64)), "int4w")
    told = {**artifact.metadata["executed"], "int4_layout": "AVX9"}
    changed = dataclasses.replace(artifact, metadata={**artifact.metadata, "executed": told})
    with pytest.raises(ArtifactError) as caught:
        backend.load(changed, backend.devices()[0])
    text = str(caught.value)
    assert "the artifact's int4 weights were packed for other kernels" in text
    assert "cause: they were packed for AVX9, PyTorch uses its" in text
    assert "remedy: compile the segment again on a machine like this one, or in 'int8w'" in text


def test_an_artifact_that_does_not_say_what_it_computes_in_is_refused(backend, compiled):
    artifact = compiled(program(torch.nn.Linear(64, 16), torch.randn(1, 64)))
    with pytest.raises(ArtifactError, match="does not say what it computes in"):
        backend.load(dataclasses.replace(artifact, metadata={}), backend.devices()[0])


@pytest.mark.parametrize("precision", ["int8", "int8w", "int4w"])
def test_without_torchao_the_error_tells_what_to_install(precision, compiled, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    with pytest.raises(CompileError) as caught:
        compiled(program(torch.nn.Linear(64, 16), torch.randn(1, 64)), precision)
    text = str(caught.value)
    assert text.splitlines()[0] == f"the cpu backend needs torchao for {precision}"
    assert "remedy: pip install 'hardpoint-cpu[quantize]'" in text


RUNS = """
import sys
sys.modules["torchao"] = None
import torch
from hardpoint import Artifact
from hardpoint_cpu import plugin
found = torch.load(sys.argv[1], weights_only=True)
artifact = Artifact(**{k: found[k] for k in ("format", "files", "weights", "metadata")})
backend = plugin.hardpoint_backend_open({})
executable = backend.load(artifact, backend.devices()[0])
assert torch.equal(executable(found["x"])[0], found["y"])
"""


def test_what_torchao_made_runs_without_it(compiled, backend, tmp_path):
    x = torch.randn(2, 64)
    artifact = compiled(program(torch.nn.Linear(64, 16), x), "int4w")
    y = backend.load(artifact, backend.devices()[0])(x)[0]
    files = {name: bytes(data) for name, data in artifact.files.items()}
    torch.save(
        {"format": artifact.format, "files": files, "weights": dict(artifact.weights),
         "metadata": dict(artifact.metadata), "x": x, "y": y},
        tmp_path / "a",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUNS, str(tmp_path / "a")],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
