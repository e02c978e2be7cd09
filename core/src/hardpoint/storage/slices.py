"""Which bytes of a stored tensor an index needs."""

from __future__ import annotations

import math
from typing import NamedTuple

from hardpoint.interfaces.serializer import Index
from hardpoint.storage.refusal import show


def checked(index: Index, rank: int) -> tuple[int | slice, ...]:
    """The index as a tuple of ints and slices, no more of them than dimensions.

    :raises IndexError, ValueError: it is something else; torch would take it for more.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > rank:
        raise IndexError(f"{len(parts)} indices for {rank} dimensions")
    for part in parts:
        numbers = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
        for number in numbers:
            if type(number) is not int and not (isinstance(part, slice) and number is None):
                raise ValueError(f"{show(number)} is no whole number")
        if isinstance(part, slice) and part.step is not None and part.step <= 0:
            raise ValueError(f"{show(part)} has a step that is not positive")
    return parts


class Block(NamedTuple):
    """A run of elements, and what of it is asked for.

    :param begin: first element of the run, counted from the tensor's first.
    :param shape: of the run, taken as a tensor of its own.
    :param part: index into that tensor: the same as the whole index into the whole.
    """

    begin: int
    shape: tuple[int, ...]
    part: tuple[int | slice, ...]


def block_of(shape: tuple[int, ...], index: tuple[int | slice, ...]) -> Block:
    """The shortest run of elements (row-major) that holds ``tensor[index]``.

    Leading whole numbers and one slice after them are followed exactly; what comes after may leave
    gaps.

    :raises IndexError: a number outside its dimension.
    """
    for part, size in zip(index, shape, strict=False):
        if isinstance(part, int) and not -size <= part < size:
            raise IndexError(f"index {part} is out of bounds for a dimension of size {size}")
    begin, rest = 0, list(shape)
    parts = list(index)
    while parts:
        size, step = rest[0], math.prod(rest[1:])
        part = parts[0]
        if isinstance(part, int):
            begin += (part + size if part < 0 else part) * step
            rest, parts = rest[1:], parts[1:]
            continue
        start, stop, stride = part.indices(size)
        rows = max(0, stop - start) if start < stop else 0
        begin += start * step if rows else 0
        return Block(begin, (rows, *rest[1:]), (slice(0, rows, stride), *parts[1:]))
    return Block(begin, tuple(rest), ())


def is_run(block: Block) -> bool:
    """Whether all of the block is asked for: its bytes are the slice's bytes, in order."""
    whole = all(
        isinstance(part, slice) and part.indices(size) == (0, size, 1)
        for part, size in zip(block.part, block.shape, strict=False)
    )
    return whole or 0 in block.shape


class Rows(NamedTuple):
    """Equal runs of elements at equal distances.

    :param begin: first element of the first, counted from the tensor's first.
    :param number: how many.
    :param length: elements in each.
    :param pitch: elements from the begin of one to the begin of the next.
    """

    begin: int
    number: int
    length: int
    pitch: int


def rows_of(block: Block) -> Rows | None:
    """What the slice takes, if that is rows: a range of one dimension, and all of the others."""
    taken = [_range(part, size) for part, size in zip(block.part, block.shape, strict=False)]
    narrow = [at for at, each in enumerate(taken) if len(each) != block.shape[at]]
    if len(narrow) > 1:
        return None
    at = narrow[0] if narrow else 0
    number, inner = math.prod(block.shape[:at]), math.prod(block.shape[at + 1 :])
    size = block.shape[at] if block.shape else 1
    found = taken[at] if taken else range(size)
    if len(found) > 1 and found.step != 1:
        return None
    begin = block.begin + (found.start * inner if found else 0)
    return Rows(begin, number, len(found) * inner, size * inner)


def _range(part: int | slice, size: int) -> range:
    if isinstance(part, slice):
        return range(*part.indices(size))
    return range(part % size, part % size + 1)


def result_shape(shape: tuple[int, ...], index: tuple[int | slice, ...]) -> tuple[int, ...]:
    """The shape of ``tensor[index]``, without a tensor."""
    kept = [
        len(range(*part.indices(size)))
        for part, size in zip(index, shape, strict=False)
        if isinstance(part, slice)
    ]
    return (*kept, *shape[len(index) :])
