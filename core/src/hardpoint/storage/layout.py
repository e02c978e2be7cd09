"""Where tensors of files go in one buffer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hardpoint.interfaces.serializer import TensorInfo
from hardpoint.storage.source import Source

# Bytes between two tensors that are rather read than left out.
_GAP = 4096
# In memory a run begins as it does in the file, counted in these: what is aligned there is here.
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
        self.runs: list[Run] = []
        self.places: dict[str, int] = {}
        run: Run | None = None
        free = 0
        for info, source, begin in order:
            end = begin + info.nbytes
            if run is None or run.source is not source or begin > run.end + _GAP:
                if run is not None:
                    self.runs.append(run)
                run = Run(source, begin, end, free + (begin - free) % _ALIGNMENT)
            elif end > run.end:
                run = run._replace(end=end)
            free = run.at + run.end - run.begin
            self.places[info.name] = run.at + begin - run.begin
        if run is not None:
            self.runs.append(run)
        self.nbytes = free
