"""Who shares memory with whom, where a call writes to its state or its inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hardpoint.errors import InputError
from hardpoint.program.signature import Signature


def refuse_overlaps(
    signature: Signature, inputs: Sequence[torch.Tensor], written: Sequence[int]
) -> None:
    """A program computes first and writes to its inputs afterwards; eager would see the write.

    :raises InputError: an input that the call writes to shares memory with another input.
    """
    spans = [_span(tensor) for tensor in inputs]
    for i in written:
        start, end = spans[i]
        for j, (other_start, other_end) in enumerate(spans):
            if j != i and start < other_end and other_start < end:
                one, other = signature.inputs[i].name, signature.inputs[j].name
                raise InputError(
                    f"inputs {one} and {other} share memory, and the program writes to {one}",
                    remedy=f"pass {other}.clone()",
                )


def _span(tensor: torch.Tensor) -> tuple[int, int]:
    """First address and the one after the last; of an empty tensor nothing."""
    if tensor.numel() == 0:
        return (0, 0)
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.element_size()


def write_back(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], results: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Give state and inputs their new values, as the eager model would have; give the results.

    A new value or a result that lives in memory which is about to be written (a rotated cache, two
    buffers swapped) is copied out first.

    :param pairs: (new value, tensor that it replaces).
    """
    about = {target.untyped_storage().data_ptr() for _, target in pairs}

    def safe(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in about else tensor

    staged = [(safe(value), target) for value, target in pairs]
    results = [safe(result) for result in results]
    for value, target in staged:
        target.copy_(value)
    return results
