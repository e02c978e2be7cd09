"""Where tensors of files go in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.direct import BLOCK, worth
from hardpoint.storage.source import Source

# Bytes between two tensors that are rather read than left out.
_GAP = 4096
# In memory a run begins as it does in the file, counted in these (a long one: in disk blocks), so
# that what is aligned there is here.
_ALIGNMENT = 64


class Run(NamedTuple):
    """Bytes ``begin`` to ``end`` of a file go to byte ``at`` of the buffer."""

    source: Source
    begin: int
    end: int
    at: int


class Layout:
    """Stretches of files that hold all bytes of some tensors, each byte once.

    :ivar runs: the stretches, in the order of the buffer.
    :ivar places: byte of the buffer at which each tensor begins; not of empty ones.
    :ivar nbytes: of the buffer.
    """

    def __init__(self, placed: Sequence[tuple[TensorInfo, Source]]) -> None:
        order = [(info, source, info.offset or 0) for info, source in placed if info.nbytes]
        order.sort(key=lambda each: (id(each[1]), each[2]))
        stretches: list[tuple[Source, int, int]] = []
        members: list[tuple[str, int, int]] = []
        for info, source, begin in order:
            end = begin + info.nbytes
            if stretches and stretches[-1][0] is source and begin <= stretches[-1][2] + _GAP:
                _, first, last = stretches[-1]
                stretches[-1] = (source, first, max(last, end))
            else:
                stretches.append((source, begin, end))
            members.append((info.name, len(stretches) - 1, begin))
        self.runs: list[Run] = []
        self.nbytes = 0
        for source, begin, end in stretches:
            at = congruent(self.nbytes, begin, end - begin)
            self.runs.append(Run(source, begin, end, at))
            self.nbytes = at + end - begin
        self.places = {
            name: self.runs[number].at + begin - self.runs[number].begin
            for name, number, begin in members
        }


def congruent(free: int, begin: int, nbytes: int) -> int:
    """The next place from ``free`` on for ``nbytes`` that stand at ``begin`` of a file."""
    return free + (begin - free) % (BLOCK if worth(nbytes) else _ALIGNMENT)
