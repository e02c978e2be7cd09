"""What an artifact is bound to, and what is said where it does not fit."""

from __future__ import annotations

import dataclasses
import importlib.util

import pytest
import torch
from torch._subclasses import FakeTensorMode

from hardpoint import Artifact, ArtifactError, CompileError, DeviceLost, OutOfMemory
from hardpoint_cuda import bound, engine, running
from hardpoint_cuda.options import Options
from hardpoint_cuda.pinned import to_pinned
from hardpoint_cuda.vendor import CUDA


@pytest.fixture
def made(tools):
    """An artifact's facts as they were written for a device, in any mode."""

    def make(mode: str, precision: str = "fp32", arch: str = "sm_90", **options) -> Artifact:
        wanted = Options.parse({"mode": mode, **options}, precision, CUDA)
        device = tools.gpu(arch, name="NVIDIA H100")
        facts = bound.facts(wanted, precision, device)
        return tools.through_bytes(Artifact(CUDA.format(mode), {}, {}, facts))

    return make


@pytest.mark.parametrize("mode", CUDA.modes)
def test_it_opens_on_the_device_that_it_was_made_for(mode, made, tools):
    assert bound.check(made(mode), tools.gpu(name="NVIDIA H100"), CUDA) == mode


@pytest.mark.parametrize("mode", ["eager", "inductor"])
def test_a_graph_opens_wherever_the_device_can_do_what_it_needs(mode, made, tools):
    other = tools.gpu("sm_86", name="RTX 3060", driver="525.1", torch="2.14.0", runtime="12.6")
    assert bound.check(made(mode, "bf16"), other, CUDA) == mode


@pytest.mark.parametrize(
    ("mode", "other", "what", "cause"),
    [
        ("aot", {"arch": "sm_86"}, "the artifact was compiled for another architecture", "it was compiled for sm_90, this is sm_86 (RTX)"),
        ("aot", {"torch": "2.14.0"}, "the artifact was compiled for another version of PyTorch", f"it was compiled for {torch.__version__}, this is 2.14.0 (RTX)"),
        ("aot", {"runtime": "12.6"}, "the artifact was compiled for another version of CUDA", "it was compiled for 13.0, this is 12.6 (RTX)"),
        ("aot", {"driver": "580.65.06"}, "the artifact was compiled under a newer driver", "it was compiled under 580.159.03, this is 580.65.06"),
        ("tensorrt", {"arch": "sm_100"}, "the artifact was compiled for another architecture", "it was compiled for sm_90, this is sm_100 (RTX)"),
        ("tensorrt", {}, "the artifact was compiled for another model of device", "it was compiled for NVIDIA H100, this is RTX (RTX)"),
    ],
)  # fmt: skip
def test_compiled_code_is_refused_elsewhere_with_both_sides_named(
    mode, other, what, cause, made, tools
):
    with pytest.raises(ArtifactError) as caught:
        bound.check(made(mode), tools.gpu(**{"name": "RTX", **other}), CUDA)
    assert (caught.value.what, caught.value.cause) == (what, cause)


def test_a_newer_driver_and_an_unknown_one_are_no_reason(made, tools):
    for driver in ("590.2", ""):
        assert bound.check(made("aot"), tools.gpu(driver=driver), CUDA) == "aot"


def test_what_needs_more_than_the_device_does_is_refused(made, tools):
    with pytest.raises(ArtifactError) as caught:
        bound.check(made("eager", "bf16"), tools.gpu("sm_75", name="Tesla T4"), CUDA)
    assert str(caught.value.what) == "the artifact does not run on Tesla T4"
    assert caught.value.cause == (
        "arithmetic in bfloat16 needs compute capability 8.0, and Tesla T4 has 7.5"
    )


@pytest.mark.parametrize("needs", [None, "bf16", ["fp4"]])
def test_one_that_does_not_say_what_it_needs_is_refused(needs, made, tools):
    artifact = made("eager")
    artifact = dataclasses.replace(artifact, metadata={**artifact.metadata, "needs": needs})
    with pytest.raises(ArtifactError, match="does not say what it needs of a device"):
        bound.check(artifact, tools.gpu(), CUDA)


def test_a_foreign_artifact_is_refused(backend, tools):
    for name in ("hardpoint-cpu/eager/1", "hardpoint-rocm/eager/1", "hardpoint-cuda/eager/2"):
        with pytest.raises(ArtifactError) as caught:
            backend.load_for(Artifact(name), tools.gpu())
        assert caught.value.what == (
            f"the artifact's format {name!r} is not one that the cuda backend reads"
        )
        assert "provider: backend:cuda (from hardpoint-cuda" in str(caught.value)


def test_a_damaged_graph_is_refused_in_this_backend_s_name(backend, compiled, tools):
    artifact = compiled(tools.exported(lambda x: x + 1, torch.ones(2)))
    damaged = dataclasses.replace(artifact, files={"graph.json": b"{"})
    with pytest.raises(ArtifactError, match=r"graph\.json is damaged") as caught:
        backend.load_for(damaged, tools.gpu())
    assert caught.value.provider == "backend:cuda"


def test_what_goes_to_the_cpu_is_pinned_where_that_was_asked_for(
    compiled, backend, tools, monkeypatch
):
    program = tools.exported(torch.nn.ReLU(), torch.ones(2, 3))
    pinned = []

    def watched(tensor, hardware, vendor):
        pinned.append((hardware.index, vendor.name))
        return to_pinned(tensor, hardware, vendor)

    monkeypatch.setattr(running, "to_pinned", watched)
    for asked in (False, True):
        artifact = compiled(program, pinned=asked)
        assert artifact.metadata["pinned"] is asked
        with FakeTensorMode(allow_non_fake_inputs=True):
            executable = backend.load_for(artifact, tools.gpu())
            given = torch.empty(3, 2, device="cuda:0").t()
            found = executable.to_cpu(given)
        assert (found.device.type, found.shape, found.stride()) == ("cpu", (2, 3), (1, 2))
        assert executable.facts()["pinned"] is asked
        assert pinned == [(0, "cuda")] * asked


def reported(code: int) -> torch.AcceleratorError:
    error = torch.AcceleratorError("CUDA error: as the driver says it\nAdvice on debugging.")
    error.error_code = code
    return error


@pytest.mark.parametrize("at", ["empty_like", "copy_"])
def test_what_an_earlier_kernel_did_is_not_called_a_lack_of_memory(at, tools, monkeypatch):
    def fails(*_, **__):
        raise reported(700)

    class Room:
        copy_ = fails

    monkeypatch.setattr(
        torch, "empty_like", fails if at == "empty_like" else lambda *_, **__: Room()
    )
    with pytest.raises(DeviceLost) as caught:
        to_pinned(torch.ones(2), tools.gpu(), CUDA)
    assert caught.value.what == (
        "cuda:0 (a GPU of sm_90) is lost to this process: a kernel used an address that is not its own"
    )
    assert caught.value.provider == "backend:cuda"


def test_a_driver_that_locks_no_more_memory_is_out_of_the_cpu_s(tools, monkeypatch):
    def fails(*_, **__):
        raise reported(2)

    monkeypatch.setattr(torch, "empty_like", fails)
    with pytest.raises(OutOfMemory, match="the CPU's memory could not be pinned") as caught:
        to_pinned(torch.ones(2), tools.gpu(), CUDA)
    assert caught.value.cause == "AcceleratorError: CUDA error: as the driver says it"


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here: memory can be pinned")
def test_memory_that_cannot_be_pinned_is_an_error_and_no_copy_without(tools):
    with pytest.raises(OutOfMemory) as caught:
        to_pinned(torch.ones(500, 2), tools.gpu(), CUDA)
    assert caught.value.what == (
        "the CPU's memory could not be pinned for a result of cuda:0: 4,000 bytes"
    )
    assert "pin_memory=True requires a CUDA or other accelerator backend" in caught.value.cause
    assert caught.value.remedy == (
        "free pinned memory, allow this process more of it, or compile without the option pinned"
    )


def test_the_artifact_tells_how_it_computes(compiled, tools):
    program = tools.exported(torch.nn.Linear(4, 4), torch.ones(1, 4))
    facts = compiled(program, "int8w", compute="fp16", graphs=True).metadata
    assert {k: facts[k] for k in ("mode", "precision", "compute", "weights", "tf32", "graphs")} == {
        "mode": "eager", "precision": "int8w", "compute": "fp16", "weights": "int8",
        "tf32": False, "graphs": 8,
    }  # fmt: skip
    assert facts["device"] == "a GPU of sm_90"


DESCRIBED = {
    "inputs": [{"dtype": "float32", "shape": ["batch", 3]}, {"dtype": "int64", "shape": [2]}],
    "symbols": {"batch": {"min": 1, "max": 64, "example": 8}},
}


def test_tensorrt_is_told_the_limits_of_each_size():
    assert engine.ranges(DESCRIBED) == [
        (torch.float32, [(1, 8, 64), (3, 3, 3)]),
        (torch.int64, [(2, 2, 2)]),
    ]
    first, second = engine.dynamic(DESCRIBED)
    assert (first[0].__name__, first[0].min, first[0].max, second) == ("batch", 1, 64, {})


def test_sizes_that_tensorrt_cannot_be_told_are_refused_with_the_remedy():
    free = {**DESCRIBED, "symbols": {"batch": {"min": 1, "max": 2**31 - 1, "example": 8}}}
    with pytest.raises(CompileError, match="size 'batch' of input 0 has no limit") as caught:
        engine.ranges(free)
    assert "torch.export.Dim('batch', max=64)" in caught.value.remedy
    made = {"inputs": [{"dtype": "float32", "shape": [["*", "batch", 2]]}], "symbols": {}}
    with pytest.raises(CompileError, match="cannot be told the sizes of input 0"):
        engine.ranges(made)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)
def test_without_tensorrt_the_mode_says_what_to_install(tools, made):
    assert "tensorrt" in engine.missing()
    with pytest.raises(CompileError, match="mode 'tensorrt' is not installed"):
        engine.compile_segment(None, DESCRIBED, tools.gpu(), CUDA, tf32=False)
    artifact = dataclasses.replace(made("tensorrt"), files={engine.FILE: b"..."})
    with pytest.raises(ArtifactError, match="needs TensorRT, which is not installed"):
        engine.load(artifact, tools.gpu())
