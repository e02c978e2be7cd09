"""Faults at run time that a host can act on, told apart from mistakes and from plain failures."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hardpoint.errors import DeviceLost, HardpointError, OutOfMemory, RuntimeFault

# Runtimes that have no type for it: PyTorch's CPU allocator, C++'s own, MPS, XPU and OpenCL.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "std::bad_alloc",
    "cl_out_of_resources",
    "cl_mem_object_allocation_failure",
)
# CUDA's and HIP's codes (the same numbers) that say "this call was wrong" and leave the device as
# it is: invalid value, invalid configuration, invalid device function, no kernel for this device.
_DEVICE_IS_WELL = frozenset({1, 9, 98, 209})
_CODE_OUT_OF_MEMORY = 2

OUT_OF_MEMORY_REMEDY = (
    "free memory, pass smaller inputs, or compile with fallback=['cpu'], which goes on elsewhere"
)
DEVICE_LOST_REMEDY = (
    "make the model again (a lost device may need a new process), or compile with "
    "fallback=['cpu'], which goes on elsewhere"
)


def fault_of(error: BaseException) -> type[RuntimeFault] | None:
    """Which fault an exception out of a runtime is; ``None``: none of those.

    Known are the fault classes themselves, ``MemoryError``, ``torch.OutOfMemoryError``,
    ``torch.AcceleratorError``, and ``RuntimeError`` with the words of an allocator.
    """
    if isinstance(error, RuntimeFault):
        return type(error)
    if isinstance(error, HardpointError):  # a vendor's own judgement stands
        return None
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return OutOfMemory
    if isinstance(error, torch.AcceleratorError):
        code = getattr(error, "error_code", None)
        if code == _CODE_OUT_OF_MEMORY:
            return OutOfMemory
        return None if code in _DEVICE_IS_WELL else DeviceLost
    if isinstance(error, RuntimeError):
        text = str(error).lower()
        if any(words in text for words in _OUT_OF_MEMORY):
            return OutOfMemory
    return None


def translated(error: Exception, what: str, *, provider: str, origin: str) -> RuntimeFault | None:
    """The fault that ``error`` is, with what its reader needs; ``None`` where it is none.

    :param what: of whom, e.g. ``segment s0 on cuda:0``.
    """
    fault = fault_of(error)
    if fault is None:
        return None
    memory = issubclass(fault, OutOfMemory)
    remedy = OUT_OF_MEMORY_REMEDY if memory else DEVICE_LOST_REMEDY
    if isinstance(error, RuntimeFault):  # raised by the plugin itself: what it left out is added
        error.provider, error.origin = error.provider or provider, error.origin or origin
        error.remedy = error.remedy or remedy
        return error
    return fault(
        f"{what} ran out of memory" if memory else f"{what} lost its device",
        provider=provider,
        origin=origin,
        cause=f"{type(error).__name__}: {_first_line(error)}",
        remedy=remedy,
    )


def _first_line(error: Exception) -> str:
    """CUDA's errors go on with lines of advice on debugging kernels."""
    return (str(error).strip().splitlines() or ["no message"])[0][:600]


def fell_back_in_words(fact: Mapping[str, object]) -> str:
    """The warning of a ``fell back`` event."""
    to = ", ".join(map(str, fact["to"]))  # type: ignore[call-overload]
    return (
        f"{fact['program']}: segment {fact['segment']} falls back from {fact['from']} to {to} in "
        f"{fact['precision']}: {fact['reason']}"
    )
