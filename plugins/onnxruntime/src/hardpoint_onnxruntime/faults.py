"""What ONNX Runtime raises when memory, a device or an index's place is gone, in our words."""

from __future__ import annotations

from hardpoint import DeviceLost, HardpointError, InputError, OutOfMemory
from hardpoint_onnxruntime.origin import ORIGIN, PROVIDER, in_words

# It has one class of errors for all, so that the words must tell.
_MEMORY = ("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory")
_LOST = ("device lost", "device removed", "device hung", "cuda failure 4:", "cuda failure 46:",
         "cuda failure 700:", "cuda failure 719:", "hip failure 719:")  # fmt: skip


def fault(error: Exception, device: str) -> HardpointError | None:
    """The fault that ``error`` is, or ``None`` where it is another."""
    from hardpoint_onnxruntime.indices import out_of_range  # not above: torch.fx, for errors only

    words = str(error).lower()
    index = out_of_range(error)
    if index:
        return InputError(
            "an index is out of range",
            cause=index,
            remedy="check the inputs that the index is made of",
        )
    if isinstance(error, MemoryError) or any(word in words for word in _MEMORY):
        return OutOfMemory(
            f"a call of ONNX Runtime needs more memory than there is on {device}",
            provider=PROVIDER,
            origin=ORIGIN,
            cause=in_words(error, 300),
            remedy="call it with smaller inputs, or name another target in fallback=",
        )
    if any(word in words for word in _LOST):
        return DeviceLost(
            f"{device} is lost: no call on it will work any more",
            provider=PROVIDER,
            origin=ORIGIN,
            cause=in_words(error, 300),
            remedy="start a new process, or name another target in fallback=",
        )
    return None
