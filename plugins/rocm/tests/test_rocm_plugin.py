"""What differs on AMD's devices: how they are found, what they do, whose name errors bear."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from hardpoint import (
    ArtifactError,
    CompileError,
    ConfigError,
    OutOfMemory,
    ProbeRequest,
    ProviderUnavailable,
)
from hardpoint_cuda import bound, probing
from hardpoint_cuda.backend import GpuBackend
from hardpoint_cuda.options import Options
from hardpoint_cuda.pinned import to_pinned
from hardpoint_cuda.vendor import CUDA, Hardware
from hardpoint_rocm import plugin, topology
from hardpoint_rocm.vendor import ROCM

without_rocm = pytest.mark.skipif(
    torch.version.hip is not None, reason="this PyTorch is built for ROCm"
)


def gpu(arch: str = "gfx942", **more: object) -> Hardware:
    facts = {"index": 0, "name": "AMD Instinct", "arch": arch, "driver": "6.14", "runtime": "7.1",
             "torch": torch.__version__}  # fmt: skip
    return Hardware(**{**facts, **more})


def program(model, *inputs):
    return torch.export.export(model, inputs, strict=False).run_decompositions({})


@pytest.fixture
def backend() -> GpuBackend:
    return GpuBackend({}, ROCM, topology.listing)


@without_rocm
def test_on_a_build_without_rocm_the_probe_gives_the_reason_and_imports_no_torch():
    code = (
        "import sys, json\n"
        "from hardpoint import ProbeRequest\n"
        "from hardpoint_rocm import plugin\n"
        "plugin.hardpoint_backend_info()\n"
        "found = plugin.hardpoint_backend_probe(ProbeRequest())\n"
        "print(json.dumps([found.available, found.reason, 'torch' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    available, reason, imported = json.loads(done.stdout)
    assert (available, imported) == (False, False)
    assert "ROCm" in reason


@without_rocm
def test_opening_it_here_is_refused_in_its_own_name():
    with pytest.raises(ProviderUnavailable) as caught:
        plugin.hardpoint_backend_open({})
    assert "provider: backend:rocm (from hardpoint-rocm 0.1.0)" in str(caught.value)
    assert not plugin.hardpoint_backend_probe(ProbeRequest(deep=True)).available


def test_a_build_for_cuda_is_not_one_for_rocm(monkeypatch):
    monkeypatch.setattr(probing, "torch_version", lambda: {"version": "2.13.0", "cuda": "13.0"})
    assert probing.build_missing(ROCM) == "PyTorch 2.13.0 is built for CUDA 13.0, not for ROCm"


def test_every_variant_is_made_of_options_that_this_vendor_has():
    info = plugin.hardpoint_backend_info()
    assert "no result of it has been seen on real hardware" in info.unverified
    for variant in info.variants.values():
        assert Options.parse(variant, "fp32", ROCM).mode in ROCM.modes
    with pytest.raises(ConfigError, match="mode 'tensorrt' does not exist"):
        Options.parse({"mode": "tensorrt"}, "fp32", ROCM)


def node(folder, number: int, simd: int, version: int, memory: int = 0) -> None:
    """A node of the kernel's topology, written as the kernel writes it."""
    bank = folder / str(number) / "mem_banks" / "0"
    bank.mkdir(parents=True)
    (folder / str(number) / "properties").write_text(
        f"cpu_cores_count {0 if simd else 64}\nsimd_count {simd}\ngfx_target_version {version}\n"
    )
    (bank / "properties").write_text(f"heap_type {1 if simd else 0}\nsize_in_bytes {memory}\n")


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    for name in ROCM.hiding:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_devices_are_read_off_the_kernel_s_list_and_processors_left_out(nodes):
    node(nodes, 0, 0, 0, 2**40)
    node(nodes, 1, 1216, 90402, 192 * 2**30)
    node(nodes, 10, 1216, 90402, 192 * 2**30)
    found = topology.listing(nodes)
    assert [(d.id, d.name, d.torch_device) for d in found] == [
        ("0", "AMD gfx942", "cuda:0"), ("1", "AMD gfx942", "cuda:1"),
    ]  # fmt: skip
    assert found[0].memory == 192 * 2**30
    assert found[0].properties == {"arch": "gfx942"}


def test_where_the_list_cannot_tell_the_order_a_child_is_asked(nodes, monkeypatch):
    node(nodes, 0, 1216, 90402)
    node(nodes, 1, 96, 110000)
    assert topology.listing(nodes) is None
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert topology.listing(nodes) is None


def test_without_the_driver_that_is_the_reason(nodes):
    missing = nodes / "none"
    assert topology.listing(missing) == (
        f"AMD's driver (amdgpu) is not loaded: {missing} does not exist"
    )


@pytest.mark.parametrize(
    ("version", "arch"),
    [(90402, "gfx942"), (90010, "gfx90a"), (110000, "gfx1100"), (120001, "gfx1201"), (90500, "gfx950")],
)  # fmt: skip
def test_architectures_are_written_as_compilers_write_them(version, arch):
    assert topology.architecture(version) == arch


@pytest.mark.parametrize(
    ("arch", "need", "reason"),
    [
        ("gfx942", "bf16", ""),
        ("gfx1030", "bf16", "arithmetic in bfloat16 needs one of gfx908*, gfx90a*, gfx94*, gfx95*, gfx11*, gfx12*, and AMD Instinct is a gfx1030"),
        ("gfx90a", "tf32", "TF32 needs one of gfx94*, gfx95*, and AMD Instinct is a gfx90a"),
        ("gfx950", "fp8", ""),
        ("gfx942", "fp8", "AMD Instinct (gfx942) has float8_e4m3fnuz, not float8_e4m3fn"),
        ("gfx906", "triton", "code that Triton compiles (modes inductor and aot) needs one of gfx908*, gfx90a*, gfx94*, gfx95*, gfx103*, gfx11*, gfx12*, and AMD Instinct is a gfx906"),
    ],
)  # fmt: skip
def test_what_an_architecture_does_not_do_is_said_in_words(arch, need, reason):
    assert ROCM.lacks(gpu(arch), need) == reason


def test_programs_compile_without_a_device_and_are_this_vendor_s_own(backend):
    made = backend.compile_for(program(torch.nn.Linear(2, 2), torch.ones(1, 2)), gpu(), "bf16", Options())  # fmt: skip
    assert made.format == "hardpoint-rocm/eager/1"
    assert made.metadata["arch"] == "gfx942"
    assert bound.check(made, gpu("gfx1100"), ROCM) == "eager"
    with pytest.raises(ArtifactError, match="not one that the cuda backend reads"):
        bound.check(made, gpu(), CUDA)
    with pytest.raises(ArtifactError, match="does not run on AMD Instinct"):
        bound.check(made, gpu("gfx1030"), ROCM)


def test_a_refusal_bears_its_name(backend):
    with pytest.raises(CompileError) as caught:
        backend.compile_for(
            program(torch.nn.Linear(2, 2), torch.ones(1, 2)), gpu("gfx1030"), "bf16", Options()
        )
    assert caught.value.what == "rocm:0 does not do what is asked for"
    assert caught.value.provider == "backend:rocm"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a device is here: memory can be pinned")
def test_what_cannot_be_pinned_bears_its_name():
    with pytest.raises(OutOfMemory, match="a result of rocm:0: 8 bytes") as caught:
        to_pinned(torch.ones(2), gpu(), ROCM)
    assert caught.value.provider == "backend:rocm"


@pytest.mark.skipif(not torch.version.hip, reason="no PyTorch for ROCm, and so no AMD device")
@pytest.mark.parametrize("mode", ROCM.modes)
def test_on_a_real_device_every_mode_gives_the_model_s_numbers(mode):
    import hardpoint as hp

    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    x = torch.randn(8, 16)
    plan = hp.plan(hp.capture(model.eval(), (x,)), targets=["rocm"])
    compiled = hp.compile(plan, options={"rocm": {"mode": mode}}, max_error=1e-4)
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
