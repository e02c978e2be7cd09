"""What is told about devices without touching them, and by a process that may die of touching."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import CompileOptions, ConfigError, Device, ProbeRequest, ProviderUnavailable
from hardpoint.measuring.survey import survey
from hardpoint_cuda import builds, child, nvml, plugin, probing
from hardpoint_cuda.hardware import has_kernels
from hardpoint_cuda.nvml import NvmlDevice
from hardpoint_cuda.options import Options
from hardpoint_cuda.vendor import CUDA, capability

H100 = NvmlDevice("NVIDIA H100", 80 * 2**30, (9, 0))
T4 = NvmlDevice("Tesla T4", 15 * 2**30, (7, 5))

without_cuda = pytest.mark.skipif(
    torch.version.cuda is not None, reason="this PyTorch is built for CUDA"
)


def test_the_info_says_that_nothing_of_it_is_proven_on_hardware():
    info = plugin.hardpoint_backend_info()
    assert "no result of it has been seen on real hardware" in info.unverified
    assert info.precisions == ("fp32", "bf16", "fp16", "int8w")


def test_every_variant_is_made_of_options_that_exist_and_go_together():
    for variant in plugin.hardpoint_backend_info().variants.values():
        precision = "int8w" if "weights" in variant else "fp32"
        assert Options.parse(variant, precision, CUDA).mode in CUDA.modes


def test_bench_and_auto_try_weights_in_fp8_too():
    found = survey(hp.Registry(), lambda target: None, targets=["cuda:0"], precisions=["int8w"])
    fp8 = {c.label: c.options["cuda"] for c in found.candidates if "fp8" in c.label}
    assert fp8 == {
        "cuda:0 int8w fp8 weights": {"weights": "fp8"},
        "cuda:0 int8w inductor with fp8 weights": {"mode": "inductor", "weights": "fp8"},
    }


def test_in_other_precisions_the_variant_is_refused_before_anything_is_compiled(backend, tools):
    program = tools.exported(torch.relu, torch.ones(2))
    variant = plugin.hardpoint_backend_info().variants["fp8 weights"]
    with pytest.raises(ConfigError) as caught:
        backend.compile(program, Device("0", "a GPU"), CompileOptions("bf16", (), variant))
    assert caught.value.what == "option weights has no meaning with precision 'bf16'"


def test_asking_imports_no_torch_and_says_what_this_build_lacks():
    code = (
        "import sys, json\n"
        "from hardpoint import ProbeRequest\n"
        "from hardpoint_cuda import plugin\n"
        "plugin.hardpoint_backend_info()\n"
        "found = plugin.hardpoint_backend_probe(ProbeRequest())\n"
        "print(json.dumps([found.available, found.reason, 'torch' in sys.modules]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    available, reason, imported = json.loads(done.stdout)
    if torch.version.cuda is None:
        assert (available, imported) == (False, False)
        assert reason == f"PyTorch {torch.__version__} is built without CUDA"
    else:
        assert available or reason


def test_the_build_is_read_off_the_file_as_torch_itself_says_it():
    code = "from hardpoint_cuda.builds import torch_version; import json; print(json.dumps(torch_version()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == builds.torch_version()
    assert builds.torch_version()["version"] == torch.__version__


@without_cuda
@pytest.mark.parametrize("deep", [False, True])
def test_on_a_build_without_cuda_the_probe_gives_the_reason_and_a_remedy(deep):
    found = plugin.hardpoint_backend_probe(ProbeRequest(deep=deep))
    assert not found.available
    assert found.reason == f"PyTorch {torch.__version__} is built without CUDA"
    assert found.remedy == "install PyTorch 2.13's wheel for CUDA"


@without_cuda
def test_opening_it_here_is_refused_with_the_same_reason():
    with pytest.raises(ProviderUnavailable) as caught:
        plugin.hardpoint_backend_open({})
    assert str(caught.value) == (
        "the cuda backend cannot be used here\n"
        "  provider: backend:cuda (from hardpoint-cuda 0.1.0)\n"
        f"  cause: PyTorch {torch.__version__} is built without CUDA\n"
        "  remedy: install PyTorch 2.13's wheel for CUDA"
    )


@without_cuda
@pytest.mark.skipif(torch.version.hip is not None, reason="this PyTorch is built for ROCm")
def test_the_benchmark_says_why_it_measures_nothing_here():
    script = Path(__file__).parents[3] / "tests" / "bench" / "cuda.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"nothing is measured: cuda: PyTorch {torch.__version__} is built without CUDA; "
        f"rocm: PyTorch {torch.__version__} is built without ROCm\n"
    )


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        ({}, "PyTorch is not installed"),
        ({"version": "2.13.0", "cuda": "13.0"}, ""),
        (
            {"version": "2.13.0", "hip": "7.1"},
            "PyTorch 2.13.0 is built for ROCm 7.1, which answers torch.cuda.* in CUDA's place; "
            "its backend is 'rocm'",
        ),
    ],
)
def test_a_build_for_rocm_is_told_apart_though_it_answers_torch_cuda(monkeypatch, built, reason):
    monkeypatch.setattr(probing, "torch_version", lambda: built)
    assert probing.build_missing(CUDA) == reason


@pytest.mark.parametrize(
    ("chosen", "order", "devices", "seen"),
    [
        (None, None, [H100, H100], [H100, H100]),
        (None, None, [T4, H100], None),  # CUDA puts the fastest first, NVML the lowest address
        (None, "PCI_BUS_ID", [T4, H100], [T4, H100]),
        ("1,0", "PCI_BUS_ID", [T4, H100], [H100, T4]),
        ("1", None, [H100, H100], [H100]),
        ("0,7,1", None, [H100, H100], [H100]),  # reading stops at the first that does not exist
        ("-1", None, [H100], []),
        ("", None, [H100], []),
        ("-1", None, [T4, H100], []),
        ("GPU-8a2", None, [H100], None),
        ("MIG-8a2", None, [H100], None),
    ],
)
def test_the_devices_seen_are_those_that_cuda_would_show(monkeypatch, chosen, order, devices, seen):
    for name, value in (("CUDA_VISIBLE_DEVICES", chosen), ("CUDA_DEVICE_ORDER", order)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert nvml.visible(devices) == seen


def test_a_probe_with_devices_lists_them_and_one_without_says_what_hides_them(monkeypatch):
    monkeypatch.setattr(probing, "torch_version", lambda: {"version": "2.13.0", "cuda": "13.0"})
    monkeypatch.setattr(nvml, "listing", lambda: ("580.1", [H100, H100]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found = probing.probe(CUDA, probing.nvidia, deep=False)
    [device] = found.devices
    assert (device.id, device.name, device.torch_device) == ("0", "NVIDIA H100", "cuda:0")
    assert device.properties == {"arch": "sm_90", "driver": "580.1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = probing.probe(CUDA, probing.nvidia, deep=False)
    assert found.reason == "no CUDA device is visible (CUDA_VISIBLE_DEVICES= hides them)"


@pytest.mark.skipif(nvml.has_cuda(), reason="NVIDIA's driver is installed here")
def test_without_a_driver_nvml_says_so_in_words():
    with pytest.raises(nvml.NvmlError, match="NVIDIA's driver is not installed"):
        nvml.listing()
    assert "NVIDIA's driver is not installed" in str(probing.nvidia())


@without_cuda
def test_the_child_answers_for_the_build_that_it_finds():
    with pytest.raises(child.ChildError) as caught:
        child.ask()
    assert (
        str(caught.value) == f"PyTorch {torch.__version__} is built without CUDA and without ROCm"
    )


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
            "ended the process with signal 11",
        ),
        ("import time; time.sleep(600)", "starting the driver took longer than 1 s"),
        (
            "raise ImportError('libcudart.so.13: not found')",
            "ImportError: libcudart.so.13: not found",
        ),
    ],
    ids=["crash", "hang", "error"],
)
def test_a_driver_that_crashes_or_hangs_does_so_in_the_child(
    monkeypatch, tmp_path, planted, reason
):
    (tmp_path / "torch.py").write_text(planted)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(child.ChildError) as caught:
        child.ask(seconds=1 if "sleep" in planted else 60)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("arch", "built", "runs"),
    [
        ("sm_86", ("sm_80", "sm_90"), True),  # a later one of the same major number
        ("sm_80", ("sm_86",), False),
        ("sm_103", ("sm_90", "compute_90"), True),  # PTX
        ("sm_103", ("sm_90a",), False),  # code for that one only
        ("sm_90", ("sm_90a", "sm_90"), True),
        ("sm_61", ("sm_75", "sm_80"), False),
        ("gfx942", ("gfx90a", "gfx942"), True),
        ("gfx1030", ("gfx942",), False),
        ("sm_90", (), True),  # unknown
    ],
)
def test_available_is_not_the_same_as_having_kernels_for_the_device(arch, built, runs):
    assert has_kernels(arch, built) is runs


def test_architectures_are_read_with_two_digits_of_major_number_too():
    assert [capability(a) for a in ("sm_75", "sm_90a", "sm_103", "sm_120f")] == [
        (7, 5), (9, 0), (10, 3), (12, 0)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="'gfx942' is no architecture of CUDA's"):
        capability("gfx942")


def test_a_wrong_configuration_is_explained():
    from hardpoint_cuda.backend import GpuBackend

    with pytest.raises(ConfigError, match="has no configuration 'operator'") as caught:
        GpuBackend({"operator": []}, CUDA, probing.nvidia)
    assert caught.value.remedy == "did you mean 'operators'?"
    with pytest.raises(ConfigError, match="configuration operators is 'torchvision'"):
        GpuBackend({"operators": "torchvision"}, CUDA, probing.nvidia)
