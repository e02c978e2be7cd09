"""A Mac's GPU: found or refused with the reason, no silent CPU, no float64."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
import torch
from torch._subclasses import FakeTensorMode

from hardpoint import (
    Artifact,
    ArtifactError,
    CompileError,
    ConfigError,
    Device,
    OutOfMemory,
    ProbeRequest,
    ProviderUnavailable,
)
from hardpoint_cpu import elsewhere
from hardpoint_cpu.operators import Operators
from hardpoint_metal import plugin, system
from hardpoint_metal.backend import MetalBackend, MetalExecutable
from hardpoint_metal.options import Options
from hardpoint_metal.system import Mac

HERE = Device("0", "Apple M3", "mps:0")
M3 = Mac((15, 2), "Apple M3", torch.__version__)
elsewhere_than_a_mac = pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")


def program(function, *inputs):
    model = function
    if not isinstance(model, torch.nn.Module):

        class Model(torch.nn.Module):
            def forward(self, *inputs):
                return function(*inputs)

        model = Model()
    return torch.export.export(model, inputs, strict=False).run_decompositions({})


@pytest.fixture
def backend() -> MetalBackend:
    """The backend as it is behind ``open``, which refuses where there is no Mac."""
    return MetalBackend({})


@elsewhere_than_a_mac
def test_elsewhere_than_on_a_mac_the_probe_says_so_and_imports_no_torch():
    code = (
        "import sys, json\n"
        "from hardpoint import ProbeRequest\n"
        "from hardpoint_metal import plugin\n"
        "plugin.hardpoint_backend_info()\n"
        "found = plugin.hardpoint_backend_probe(ProbeRequest(deep=True))\n"
        "print(json.dumps([found.available, found.reason, 'torch' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [False, f"Metal is macOS's, this is {sys.platform}", False]


@elsewhere_than_a_mac
def test_opening_it_here_is_refused_with_the_same_reason():
    with pytest.raises(ProviderUnavailable) as caught:
        plugin.hardpoint_backend_open({})
    assert str(caught.value) == (
        "the metal backend cannot be used here\n"
        "  provider: backend:metal (from hardpoint-metal 0.1.0)\n"
        f"  cause: Metal is macOS's, this is {sys.platform}\n"
        "  remedy: choose another target"
    )


def test_a_silent_fallback_that_the_environment_asks_for_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv(system.FALLBACK, "1")
    found = plugin.hardpoint_backend_probe(ProbeRequest())
    assert not found.available
    assert found.reason == (
        "PYTORCH_ENABLE_MPS_FALLBACK=1 lets PyTorch compute on the CPU, in silence, what Metal lacks"
    )
    assert found.remedy == (
        "unset PYTORCH_ENABLE_MPS_FALLBACK; name the target for the rest yourself: "
        "targets=['metal', 'cpu']"
    )
    monkeypatch.setenv(system.FALLBACK, "0")
    assert system.fallback_asked() == ""


@pytest.mark.skipif(torch.backends.mps.is_built(), reason="this PyTorch is built with MPS")
def test_built_is_told_apart_from_available(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delenv(system.FALLBACK, raising=False)
    found = system.probe()
    assert found.reason == f"PyTorch {torch.__version__} is built without MPS"
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: True)
    monkeypatch.setattr(platform, "mac_ver", lambda: ("13.6", ("", "", ""), "arm64"))
    assert "macOS 13.6" in system.probe().reason
    assert "offers it no device" in system.probe().reason


def test_the_info_is_honest_and_its_variants_exist():
    info = plugin.hardpoint_backend_info()
    assert "no result of it has been seen on real hardware" in info.unverified
    assert [Options.parse(v).mode for v in info.variants.values()] == ["inductor", "aot"]


@pytest.mark.parametrize(
    ("given", "what", "remedy"),
    [
        ({"mode": "graphs"}, "mode 'graphs' does not exist", "known: aot, eager, inductor"),
        ({"modes": "aot"}, "the metal backend has no option 'modes'", "did you mean 'mode'?"),
    ],
)
def test_wrong_options_are_explained(given, what, remedy):
    with pytest.raises(ConfigError) as caught:
        Options.parse(given)
    assert (caught.value.what, caught.value.remedy) == (what, remedy)
    with pytest.raises(ConfigError, match="has no configuration 'operator'"):
        MetalBackend({"operator": []})
    with pytest.raises(ConfigError, match="configuration operators is 'x'"):
        MetalBackend({"operators": "x"})


def test_float64_is_unsupported_by_node_and_refused_as_a_weight(backend):
    answer = backend.support(program(lambda x: x.double() + 1, torch.ones(2)), HERE)
    assert set(answer.unsupported.values()) >= {"Metal has no float64"}
    with pytest.raises(CompileError) as caught:
        backend.compile_for(
            program(torch.nn.Linear(2, 2).double(), torch.ones(1, 2).double()),
            M3,
            "fp32",
            Options(),
        )
    assert caught.value.what == "weight 'weight' is torch.float64"
    assert caught.value.cause == "Metal has no float64"


@pytest.mark.skipif(torch.backends.mps.is_built(), reason="this PyTorch has kernels of Metal's")
def test_an_operator_counts_by_a_kernel_of_its_own_and_not_by_the_fallback_for_all(backend):
    answer = backend.support(program(torch.tanh, torch.ones(2)), HERE)
    assert answer.unsupported == {
        "tanh": f"PyTorch {torch.__version__} has no Metal kernel of aten.tanh.default"
    }


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_nothing_of_a_program_stays_on_the_cpu(backend, precision):
    """Walked with fake tensors, which know that no operator takes tensors of two devices."""
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.GELU())
    x = torch.randn(3, 8)
    exported = program(lambda x: model(x) + torch.arange(16) / 16, x)
    artifact = backend.compile_for(exported, M3, precision, Options())
    assert artifact.format == "hardpoint-metal/eager/1"
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        made = elsewhere.load(artifact, Operators(), torch.device("mps:0"), "eager")
        [result] = made(mode.from_tensor(x).to("mps:0"))
    assert (result.device.type, result.dtype) == ("mps", torch.float32)
    here = elsewhere.load(artifact, Operators(), torch.device("cpu"), "eager")
    expected = (model(x) + torch.arange(16) / 16).detach()
    torch.testing.assert_close(
        here(x)[0], expected, rtol=0, atol=0 if precision == "fp32" else 0.05
    )


def test_bfloat16_needs_macos_14_when_compiled_and_when_opened(backend):
    old = Mac((13, 6), "Apple M1", torch.__version__)
    exported = program(torch.nn.Linear(2, 2), torch.ones(1, 2))
    with pytest.raises(CompileError) as caught:
        backend.compile_for(exported, old, "bf16", Options())
    assert caught.value.cause == "bfloat16 needs macOS 14, and this is macOS 13.6"
    artifact = backend.compile_for(exported, M3, "bf16", Options())
    with pytest.raises(ArtifactError, match="does not run on this Mac"):
        backend.load_for(artifact, old)
    with pytest.raises(CompileError, match="the metal backend does not compute in int8w"):
        backend.compile_for(exported, M3, "int8w", Options())


def test_artifacts_of_others_and_of_another_pytorch_are_refused(backend):
    with pytest.raises(ArtifactError, match="not one that the metal backend reads") as caught:
        backend.load_for(Artifact("hardpoint-cuda/eager/1"), M3)
    assert caught.value.provider == "backend:metal"
    with pytest.raises(ArtifactError) as caught:
        backend.load_for(Artifact("hardpoint-metal/aot/1", metadata={"torch": "2.12.0"}), M3)
    assert caught.value.cause == (
        f"it was compiled with torch 2.12.0, this is torch {torch.__version__}"
    )


def test_out_of_memory_which_metal_has_no_type_for_is_told_by_its_words():
    class Full(MetalExecutable):
        """What a call sees when Metal's allocator gives up."""

    def full(*_):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB, max allowed: 9 GB).")

    with pytest.raises(OutOfMemory) as caught:
        Full(full, {"device": "Apple M3"})(torch.ones(1))
    assert caught.value.what == ("metal:0 (Apple M3) ran out of the memory that Metal may use")

    def other(*_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Full(other, {"device": "Apple M3"})(torch.ones(1))


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no device of Metal's is here")
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_on_a_real_device_every_mode_gives_the_model_s_numbers(mode, precision):
    import hardpoint as hp

    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    x = torch.randn(8, 16)
    plan = hp.plan(hp.capture(model.eval(), (x,)), targets=["metal"])
    bound = 1e-4 if precision == "fp32" else 0.05
    compiled = hp.compile(
        plan, precision=precision, options={"metal": {"mode": mode}}, max_error=bound
    )
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=bound, atol=bound)
