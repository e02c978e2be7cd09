"""What the device reports, as a reader sees it."""

from __future__ import annotations

import pytest
import torch

from hardpoint import DeviceLost, OutOfMemory, ProviderFailed
from hardpoint_cuda.faults import translated
from hardpoint_cuda.vendor import CUDA

ADVICE = "\nCUDA kernel errors might be asynchronously reported at some other API call.\nFor debugging ..."


def accelerator_error(text: str, code: int | None) -> torch.AcceleratorError:
    error = torch.AcceleratorError(text + ADVICE)
    if code is not None:
        error.error_code = code
    return error


def test_out_of_memory_names_the_device_and_its_size(tools):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB." + ADVICE)
    found = translated(error, tools.gpu(name="NVIDIA H100"), CUDA)
    assert isinstance(found, OutOfMemory)
    assert str(found) == (
        "cuda:0 (NVIDIA H100) ran out of its memory of 80.0 GiB\n"
        "  provider: backend:cuda (from hardpoint-cuda 0.1.0)\n"
        "  cause: OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n"
        "  remedy: pass smaller inputs, free what else lives there, compile with a narrower "
        "precision, or with fallback=['cpu']"
    )


def test_an_illegal_access_loses_the_device_to_this_process(tools):
    error = accelerator_error("CUDA error: an illegal memory access was encountered", 700)
    found = translated(error, tools.gpu(name="NVIDIA H100", index=1), CUDA)
    assert isinstance(found, DeviceLost)
    assert found.what == (
        "cuda:1 (NVIDIA H100) is lost to this process: a kernel used an address that is not its own"
    )
    assert found.cause == "AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert found.remedy.startswith("start a new process")


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (2, OutOfMemory, "ran out of its memory"),
        (209, ProviderFailed, "refused a call: no kernel image for this device"),
        (1, ProviderFailed, "refused a call: invalid value"),
        (214, DeviceLost, "an uncorrectable memory (ECC) error"),
        (12345, DeviceLost, "is lost to this process"),
        (None, DeviceLost, "is lost to this process"),
    ],
)
def test_each_code_is_what_it_means(tools, code, kind, words):
    found = translated(accelerator_error("CUDA error", code), tools.gpu(), CUDA)
    assert type(found) is kind
    assert words in found.what


def test_a_missing_kernel_is_no_lost_device_and_says_which_build_helps(tools):
    error = accelerator_error("CUDA error: no kernel image is available", 209)
    found = translated(error, tools.gpu("sm_120"), CUDA)
    assert found.remedy == "install a PyTorch that was built for sm_120"


def test_other_errors_are_not_the_device_s(tools):
    assert translated(ValueError("no"), tools.gpu(), CUDA) is None
