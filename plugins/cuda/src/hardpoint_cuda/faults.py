"""What a GPU reports, as errors that name the device and say what to do."""

from __future__ import annotations

import torch

from hardpoint import DeviceLost, HardpointError, OutOfMemory, ProviderFailed
from hardpoint_cuda.vendor import Hardware, Vendor

# Codes of cudaError_t, and of hipError_t, which uses the same numbers for these
# (driver_types.h and hip_runtime_api.h). They leave the device as it was.
_OURS = {1: "invalid value", 9: "invalid launch configuration", 98: "invalid device function",
         209: "no kernel image for this device"}  # fmt: skip
_MEMORY = 2
_WORDS = {
    46: "all devices are busy or unavailable",
    100: "no device is there any more",
    214: "an uncorrectable memory (ECC) error",
    700: "a kernel used an address that is not its own",
    709: "the device's context was destroyed",
    710: "a kernel's assertion failed",
    716: "a kernel used a misaligned address",
    719: "a kernel failed",
    999: "the driver failed without a reason",
}


def translated(error: Exception, hardware: Hardware, vendor: Vendor) -> HardpointError | None:
    """The reader's version of ``error``; ``None``: it is none of a device's."""
    where = f"{vendor.name}:{hardware.index} ({hardware.name})"
    if said_no_memory(error):
        return _memory(error, where, hardware, vendor)
    if not isinstance(error, torch.AcceleratorError):
        return None
    code = getattr(error, "error_code", None)
    if code in _OURS:
        return ProviderFailed(
            f"{where} refused a call: {_OURS[code]}",
            provider=vendor.provider, origin=vendor.origin, cause=first_line(error),
            remedy=f"install a PyTorch that was built for {hardware.arch}" if code == 209
            else "report it to the plugin's author; mode 'eager' may do meanwhile",
        )  # fmt: skip
    why = f": {_WORDS[code]}" if code in _WORDS else ""
    return DeviceLost(
        f"{where} is lost to this process{why}",
        provider=vendor.provider, origin=vendor.origin, cause=first_line(error),
        remedy="start a new process: none of this one can use the device again. The kernel that "
        "failed may be an earlier one, which CUDA_LAUNCH_BLOCKING=1 tells",
    )  # fmt: skip


def said_no_memory(error: Exception) -> bool:
    """Whether it is a device's, or its driver's, way to say that memory ran out."""
    code = getattr(error, "error_code", None) if isinstance(error, torch.AcceleratorError) else None
    return isinstance(error, torch.OutOfMemoryError) or code == _MEMORY


def _memory(error: Exception, where: str, hardware: Hardware, vendor: Vendor) -> OutOfMemory:
    total = "" if hardware.memory is None else f" of {hardware.memory / 2**30:.1f} GiB"
    return OutOfMemory(
        f"{where} ran out of its memory{total}",
        provider=vendor.provider, origin=vendor.origin, cause=first_line(error),
        remedy="pass smaller inputs, free what else lives there, compile with a narrower "
        "precision, or with fallback=['cpu']",
    )  # fmt: skip


def first_line(error: Exception) -> str:
    """The allocator and CUDA go on with lines of advice."""
    text = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {text[:600]}"
