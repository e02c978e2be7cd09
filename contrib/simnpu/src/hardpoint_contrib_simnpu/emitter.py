"""Where the compiler writes: instructions, and places in the device's memories."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from hardpoint_contrib_simnpu.chip import ALIGNMENT, SCRATCHPAD, aligned, in_bytes
from hardpoint_contrib_simnpu.codec import MAX_INSTRUCTIONS
from hardpoint_contrib_simnpu.isa import WIDTH, Instruction, Region, contiguous_strides, dense
from hardpoint_contrib_simnpu.memory import Allocator, Array
from hardpoint_contrib_simnpu.origin import RefusedError


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of DRAM that holds one or more values. :param holders: values that still need it."""

    address: int
    holders: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Value:
    """A tensor while it is compiled: in DRAM as contiguous fp16, or still a constant on the host.

    :param buffer: where it lies, or ``None`` for a constant.
    :param constant: its numbers, or ``None``.
    """

    shape: tuple[int, ...]
    buffer: Buffer | None = None
    constant: Array | None = None


class Emitter:
    """A program in the making.

    :param limit: greatest number of instructions; more are refused.
    """

    def __init__(self, limit: int = MAX_INSTRUCTIONS) -> None:
        self.instructions: list[Instruction] = []
        self.weights: dict[str, tuple[Region, Array]] = {}
        self.dram = Allocator()
        self.const_bytes = 0
        self._limit = limit
        self._pad = 0
        self._known: dict[int, tuple[Array, Region]] = {}

    def emit(
        self, op: str, out: Region, *ins: Region, numbers: Sequence[int | float] = ()
    ) -> Region:
        """Append an instruction; returns its result.

        :raises RefusedError: there are too many.
        """
        if len(self.instructions) >= self._limit:
            raise RefusedError(f"it takes more than {self._limit:,} instructions")
        self.instructions.append(Instruction(op, out, ins, tuple(numbers)))
        return out

    # Scratchpad: a stack, for what lives in it has a tile's lifetime.
    def tile(self, shape: Sequence[int], dtype: str = "f16") -> Region:
        """Room for a tile.

        :raises RefusedError: there is none; says how much was wanted.
        """
        region = dense("pad", self._pad, dtype, shape)
        if region.end > SCRATCHPAD:
            raise RefusedError(
                f"a tile of it takes {in_bytes(region.end)}, the scratchpad has "
                f"{in_bytes(SCRATCHPAD)}"
            )
        self._pad = aligned(region.end)
        return region

    def mark(self) -> int:
        """Where the scratchpad is used up to; :meth:`release` goes back there."""
        return self._pad

    def release(self, mark: int) -> None:
        """Forget all tiles made since :meth:`mark`."""
        self._pad = mark

    def load(self, view: Region) -> Region:
        """Copy a tile into the scratchpad."""
        return self.emit("LOAD", self.tile(view.shape, view.dtype), view)

    # DRAM.
    def new(self, shape: Sequence[int], dtype: str = "f16") -> Value:
        """Room for a value that will be computed."""
        size = math.prod(shape) * WIDTH[dtype]
        return Value(tuple(shape), Buffer(self.dram.take(size)))

    def hold(self, value: Value) -> None:
        """One more needs ``value``'s memory."""
        if value.buffer is not None:
            value.buffer.holders += 1

    def let_go(self, value: Value) -> None:
        """One fewer needs it; the last one frees it."""
        if value.buffer is not None:
            value.buffer.holders -= 1
            if value.buffer.holders == 0:
                self.dram.give_back(value.buffer.address)

    def region(self, value: Value, dtype: str = "f16") -> Region:
        """``value`` in DRAM; a constant becomes a weight, once."""
        if value.buffer is not None:
            return dense("dram", value.buffer.address, dtype, value.shape)
        assert value.constant is not None
        return self.weight(value.constant)

    def weight(self, array: Array, dtype: str = "f16", suffix: str = "") -> Region:
        """``array`` as a weight of the program; the same array is stored once."""
        if id(array) in self._known:
            return self._known[id(array)][1]
        region = dense("const", self.const_bytes, dtype, array.shape)
        self.const_bytes += aligned(region.nbytes)
        self.weights[f"w{len(self.weights)}{suffix}"] = (region, array)
        self._known[id(array)] = (array, region)  # holding it keeps its id its own
        return region


def window(view: Region, starts: Sequence[int], sizes: Sequence[int]) -> Region:
    """The block of ``view`` that begins at ``starts``."""
    offset = sum(start * stride for start, stride in zip(starts, view.strides, strict=True))
    return replace(view, address=view.address + offset * WIDTH[view.dtype], shape=tuple(sizes))


def broadcast(view: Region, shape: Sequence[int]) -> Region:
    """``view`` repeated to ``shape``, as PyTorch broadcasts."""
    missing = len(shape) - len(view.shape)
    strides = [0] * missing
    for size, stride, wanted in zip(view.shape, view.strides, shape[missing:], strict=True):
        strides.append(0 if size == 1 and wanted != 1 else stride)
    return replace(view, shape=tuple(shape), strides=tuple(strides))


def permuted(view: Region, order: Sequence[int]) -> Region:
    """``view`` with its dimensions in another order."""
    return replace(
        view,
        shape=tuple(view.shape[d] for d in order),
        strides=tuple(view.strides[d] for d in order),
    )


def reshaped(view: Region, shape: Sequence[int]) -> Region:
    """A contiguous ``view`` by other sizes."""
    return replace(view, shape=tuple(shape), strides=contiguous_strides(shape))


def blocks(
    shape: Sequence[int], elements: int
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Cut ``shape`` into blocks of at most ``elements``: (starts, sizes) of each."""
    axis, inner = len(shape), 1
    while axis > 0 and inner * shape[axis - 1] <= elements:
        axis -= 1
        inner *= shape[axis]
    if axis == 0:
        yield (0,) * len(shape), tuple(shape)
        return
    axis, rows = axis - 1, elements // inner
    for outer in product(*(range(size) for size in shape[:axis])):
        for start in range(0, shape[axis], rows):
            sizes = (1,) * axis + (min(rows, shape[axis] - start), *shape[axis + 1 :])
            yield (*outer, start, *((0,) * (len(shape) - axis - 1))), sizes


def room(tiles: int, width: int = 2) -> int:
    """Elements of each of ``tiles`` equal tiles that fit the scratchpad together."""
    return (SCRATCHPAD // tiles - ALIGNMENT) // width
