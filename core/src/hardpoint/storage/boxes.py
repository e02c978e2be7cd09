"""Tensors stored in pieces: whether boxes fill a whole exactly, and what of each an index takes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

# Dimensions that may be cut at once: the check looks at two to this power corners of each box.
MAX_CUT = 6

Sizes = tuple[int, ...]


class Box(NamedTuple):
    """A block of a tensor: where it begins and how large it is, for each dimension."""

    offsets: Sizes
    sizes: Sizes


def fills(shape: Sizes, boxes: Sequence[Box]) -> str | None:
    """``None`` if every element of ``shape`` lies in exactly one box; else what is wrong.

    Linear in the number of boxes. Counting boxes at each element gives a function whose mixed
    difference is a sum of signed corners; it is that of the whole exactly if the counts are all 1.
    """
    for box in boxes:
        if len(box.offsets) != len(shape) or len(box.sizes) != len(shape):
            return f"the chunk at {list(box.offsets)[:8]} has another number of dimensions"
        for begin, size, limit in zip(*box, shape, strict=True):
            if not (begin >= 0 and size >= 0 and begin + size <= limit):
                return f"the chunk at {list(box.offsets)[:8]} lies outside the shape"
    if 0 in shape:
        return None
    cut = [d for d, size in enumerate(shape) if any(box.sizes[d] != size for box in boxes)]
    if len(cut) > MAX_CUT:
        return f"it is cut along {len(cut)} dimensions; at most {MAX_CUT} are read"
    count: defaultdict[Sizes, int] = defaultdict(int)
    whole = Box((0,) * len(shape), shape)
    for box, weight in [*((box, 1) for box in boxes if 0 not in box.sizes), (whole, -1)]:
        ends = [(box.offsets[d], box.offsets[d] + box.sizes[d]) for d in cut]
        for corner in itertools.product((0, 1), repeat=len(cut)):
            at = tuple(end[side] for end, side in zip(ends, corner, strict=True))
            count[at] += weight if sum(corner) % 2 == 0 else -weight
    wrong = min((at for at, n in count.items() if n), default=None)
    if wrong is None:
        return None
    return f"its chunks overlap or leave a gap near {list(wrong)} of dimensions {cut}"


class Part(NamedTuple):
    """Where a box and an index meet.

    :param inside: index into the box.
    :param to: index into the result, in which whole numbers of the index are dimensions of size 1.
    """

    inside: tuple[slice, ...]
    to: tuple[slice, ...]


def ranges_of(shape: Sizes, index: tuple[int | slice, ...]) -> list[range]:
    """For each dimension the places that ``index`` takes.

    :raises IndexError: a number outside its dimension.
    """
    found: list[range] = []
    whole: tuple[int | slice, ...] = (slice(None),) * (len(shape) - len(index))
    for size, part in zip(shape, (*index, *whole), strict=True):
        if isinstance(part, slice):
            found.append(range(*part.indices(size)))
            continue
        at = part + size if part < 0 else part
        if not 0 <= at < size:
            raise IndexError(f"index {part} is out of bounds for a dimension of size {size}")
        found.append(range(at, at + 1))
    return found


def part_of(box: Box, ranges: Sequence[range]) -> Part | None:
    """What of ``box`` is asked for; ``None`` where nothing is."""
    inside, to = [], []
    for begin, size, asked in zip(*box, ranges, strict=True):
        step = asked.step
        first = max(0, -((asked.start - begin) // step)) if asked.start < begin else 0
        last = min(len(asked), -((asked.start - begin - size) // step))
        if first >= last:
            return None
        low = asked.start + first * step - begin
        inside.append(slice(low, low + (last - first - 1) * step + 1, step))
        to.append(slice(first, last))
    return Part(tuple(inside), tuple(to))
