"""Finds an executable whose results are overwritten by its own next call.

Seen by their memory: of two calls whose results are alive at once, both lie in the same place. That
alone may be a constant, or a view of a weight; so a third call, on other numbers, proves it. It
costs nothing where results have memory of their own. One that has several buffers and takes turns
is found by the conformance kit, which calls often.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hardpoint.compiler.made import Made
from hardpoint.errors import ContractViolation
from hardpoint.numerics import compare
from hardpoint.runtime.step import OpenedSegment


class Lasting:
    """Called with each segment of the second call.

    :param made: the segments, with the results of the first.
    """

    def __init__(self, made: Sequence[Made]) -> None:
        self._first = {m.segment: m for m in made}

    def __call__(
        self,
        segment: OpenedSegment,
        inputs: Sequence[torch.Tensor],
        outputs: tuple[torch.Tensor, ...],
    ) -> None:
        """:raises ContractViolation: see the module."""
        made = self._first.get(segment)
        if made is None:  # it fell back just now
            return
        before = {_place(t) for t in made.outputs if t.numel()}
        if not any(_place(t) in before for t in outputs):
            return
        kept = [t.clone() for t in outputs]
        try:
            segment.call(moves=True)(*[_other(t) for t in inputs])
        except Exception:  # a check of the program's own on its values: nothing is proven
            return
        for was, now in zip(kept, outputs, strict=True):
            if compare(now, was).error != 0:
                raise ContractViolation(
                    f"segment {segment.id} overwrites its results at its next call on "
                    f"{segment.target}",
                    provider=segment.provider, origin=segment.origin,
                    cause="an executable's results stay valid after the next call",
                    remedy="leave that target out, and report it to the plugin's author",
                )  # fmt: skip


def _place(tensor: torch.Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.data_ptr()


def _other(tensor: torch.Tensor) -> torch.Tensor:
    """Other numbers. Integers may be indices, which a runtime does not check: rows of them (tokens)
    are turned round, which leaves each in its range; a single row may be offsets, and stays.
    """
    if tensor.is_floating_point():
        return -tensor
    if tensor.dim() < 2 or tensor.dtype is torch.bool or tensor.is_complex():
        return tensor
    return tensor.flip(-1)
