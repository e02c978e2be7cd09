"""What happens to a segment's inputs on their way in; each copy that is made is counted.

On one device nothing is copied, unless the executable cannot take the tensor as it is: it ignores
strides, or needs aligned addresses. Across devices it is one copy. ``Tensor.to`` orders that copy
after the work that made its source and before what reads it (docs/decisions/0005, "Boundaries").
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import torch

Call = Callable[..., tuple[torch.Tensor, ...]]
Leave = Callable[[torch.Tensor], torch.Tensor]


class CopyError(Exception):
    """Input ``position`` could not be brought to the segment's device; ``original`` says why.

    :param makers: it was the executable that made the input, in bringing it to the CPU.
    """

    def __init__(self, position: int, original: Exception, makers: bool = False) -> None:
        super().__init__(position, original)
        self.position, self.original, self.makers = position, original, makers


class Copies:
    """How many inputs of one segment had to be copied, by reason. A count costs no call that copies
    nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one copy."""
        with self._lock:
            self._counts[reason] = self._counts.get(reason, 0) + 1

    def counts(self) -> Mapping[str, int]:
        """``moved`` to another device, made ``contiguous``, ``aligned``."""
        with self._lock:
            return dict(self._counts)


def entering(
    executable: Call,
    copies: Copies,
    *,
    device: torch.device | None = None,
    strided: bool = True,
    alignment: int = 1,
    leaving: Mapping[int, Leave] | None = None,
) -> Call:
    """``executable`` with what must be done to its inputs; itself, where that is nothing.

    :param device: where its inputs must be; ``None``: they are there.
    :param strided: it honours strides.
    :param alignment: bytes; its inputs' addresses must be multiples of this.
    :param leaving: position of an input -> how it comes to ``device``, if not by ``Tensor.to``.
    """
    if device is None and alignment == 1 and strided:
        return executable

    ways = leaving or {}

    def fit(position: int, given: torch.Tensor) -> torch.Tensor:
        tensor = given
        if device is not None:
            leave = ways.get(position)
            try:
                tensor = given.to(device) if leave is None else leave(given)
            except Exception as error:
                raise CopyError(position, error, makers=leave is not None) from error
            if tensor is not given:
                copies.add("moved")
        if not strided and not tensor.is_contiguous():
            tensor = tensor.contiguous()
            copies.add("contiguous")
        if alignment != 1 and tensor.data_ptr() % alignment:
            tensor = aligned(tensor, alignment)
            copies.add("aligned")
        return tensor

    def fitted(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return executable(*[fit(i, t) for i, t in enumerate(inputs)])

    def contiguous(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for tensor in inputs:
            if not tensor.is_contiguous():
                return fitted(*inputs)
        return executable(*inputs)

    def at_its_place(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for tensor in inputs:
            if tensor.data_ptr() % alignment or not (strided or tensor.is_contiguous()):
                return fitted(*inputs)
        return executable(*inputs)

    if device is not None:
        return fitted
    return contiguous if alignment == 1 else at_its_place


def aligned(tensor: torch.Tensor, alignment: int) -> torch.Tensor:
    """A contiguous copy at an address that is a multiple of ``alignment`` bytes."""
    room = torch.empty(tensor.nbytes + alignment, dtype=torch.uint8, device=tensor.device)
    start = -room.data_ptr() % alignment
    copy = room[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
    return copy.copy_(tensor)
