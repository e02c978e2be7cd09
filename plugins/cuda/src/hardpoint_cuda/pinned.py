"""Results that go to the CPU, into memory that the device writes to by itself.

A copy to pageable memory goes through a pinned buffer of the driver's, and is copied once more by
the CPU (CUDA C++ Best Practices Guide, "Pinned Memory"). It is an option and no default: PyTorch
rounds pinned memory up to a power of two, keeps what was freed for the next, and what a caller
keeps of it is locked for as long.
"""

from __future__ import annotations

import torch

from hardpoint import OutOfMemory
from hardpoint_cuda.faults import first_line, said_no_memory, translated
from hardpoint_cuda.vendor import Hardware, Vendor


def to_pinned(tensor: torch.Tensor, hardware: Hardware, vendor: Vendor) -> torch.Tensor:
    """A copy on the CPU, in pinned memory; complete when this returns.

    :raises OutOfMemory: the system locks no more memory for this process.
    :raises DeviceLost: what made the tensor, or the copy, lost the device.
    """
    try:
        room = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError as error:
        failure = translated(error, hardware, vendor)
        if failure is not None and not said_no_memory(error):  # an earlier kernel's, told here
            raise failure from error
        raise OutOfMemory(
            f"the CPU's memory could not be pinned for a result of {vendor.name}:{hardware.index}: "
            f"{tensor.nbytes:,} bytes",
            provider=vendor.provider,
            origin=vendor.origin,
            cause=first_line(error),
            remedy="free pinned memory, allow this process more of it, or compile without the "
            "option pinned",
        ) from error
    try:
        # Not without waiting: the caller may read it at once.
        return room.copy_(tensor)
    except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
        raise translated(error, hardware, vendor) from error  # type: ignore[misc]  # never None
