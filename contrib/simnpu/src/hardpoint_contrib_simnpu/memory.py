"""Memories: who lies where (decided by the compiler), and the bytes themselves (at run time)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hardpoint_contrib_simnpu.chip import aligned
from hardpoint_contrib_simnpu.isa import WIDTH, Region

Array = npt.NDArray[Any]
NUMPY: dict[str, np.dtype[Any]] = {
    "f32": np.dtype("<f4"),
    "f16": np.dtype("<f2"),
    "i8": np.dtype("i1"),
}


class Allocator:
    """Hands out pieces of a memory, first fit, and takes them back.

    It grows as needed: ``peak`` says how large the memory must be.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._taken: dict[int, int] = {}  # address -> bytes

    def take(self, nbytes: int) -> int:
        """The address of ``nbytes`` free bytes."""
        size, address = aligned(nbytes), 0
        for start, length in sorted(self._taken.items()):
            if start - address >= size:
                break
            address = start + length
        self._taken[address] = size
        self.peak = max(self.peak, address + size)
        return address

    def give_back(self, address: int) -> None:
        """Let go of what was taken at ``address``."""
        del self._taken[address]


class Arena:
    """The bytes of one memory: zeros at first, so that no run sees what another left behind."""

    def __init__(self, nbytes: int) -> None:
        self._bytes = np.zeros(nbytes, np.uint8)

    def at(self, region: Region) -> Array:
        """``region`` as an array: a view, writable. numpy itself refuses one that reaches out.

        :raises ValueError: it does.
        """
        width = WIDTH[region.dtype]
        view: Array = np.ndarray(
            region.shape,
            NUMPY[region.dtype],
            buffer=self._bytes.data,
            offset=region.address,
            strides=[s * width for s in region.strides],
        )
        return view
