"""Damage to the bytes of a good file: cut, lengthened, flipped, filled with giant numbers.

The same damage in every run. What the format's text says of a file is damaged in ``text``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hardpoint.testing.serializer.samples import seeded

# What must become of a damaged file. "refused": a WeightsError when it is opened or read.
# "coherent": that, or it opens, and every tensor is what its info says, in bounded memory: where
# the format has no checksum, a changed name or value is a good file of something else.
Rule = Literal["refused", "coherent"]

_HEAD = 256  # bytes that are damaged one by one
_LENGTHS = (  # as 4 or 8 bytes, either way round
    0, 1, (1 << 15), (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63,
    (1 << 64) - 8, (1 << 64) - 1,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A damaged file: what was done, its bytes, and what must become of it."""

    what: str
    data: bytes
    rule: Rule


def cut(good: bytes) -> Iterator[Case]:
    """The file cut short at every place that matters, and some that do not."""
    size = len(good)
    dense = min(size, _HEAD)
    sparse = range(dense, size, max(1, size // 64))
    for length in sorted({*range(dense), *sparse, *range(max(0, size - 64), size)}):
        yield Case(f"cut to {length} of its {size} bytes", good[:length], "refused")


def lengthened(good: bytes) -> Iterator[Case]:
    """Bytes after the end: where two readers differ about them, something can be smuggled."""
    noise = seeded().randbytes(64)
    for what, more in {
        "one zero byte": b"\0", "eight zero bytes": b"\0" * 8, "one blank": b" ",
        "64 random bytes": noise, "itself once more": good, "4,096 zero bytes": b"\0" * 4096,
    }.items():  # fmt: skip
        yield Case(f"followed by {what}", good + more, "refused")


def flipped(good: bytes) -> Iterator[Case]:
    """One bit flipped: in each byte of the head, of the tail, and in some of the rest."""
    draw = seeded()
    places = [*range(min(len(good), _HEAD)), *range(max(0, len(good) - 16), len(good))]
    places += [draw.randrange(len(good)) for _ in range(100)]
    for place in sorted(set(places)):
        bit = draw.randrange(8)
        data = bytearray(good)
        data[place] ^= 1 << bit
        yield Case(f"bit {bit} of byte {place} flipped", bytes(data), "coherent")


def giant(good: bytes) -> Iterator[Case]:
    """Giant and negative numbers where the head may hold a length, count or offset."""
    for place in range(0, min(len(good), 64), 4):
        for width in (4, 8):
            for number in _LENGTHS:
                if number >> (8 * width):
                    continue
                order: Literal["little", "big"]
                for order in ("little", "big"):
                    if order == "big" and (place or number < 256):
                        continue
                    data = bytearray(good)
                    data[place : place + width] = number.to_bytes(width, order)
                    what = f"bytes {place} to {place + width} overwritten by {number} ({order})"
                    # Where it happens to be the number that stood there, the file is still good.
                    if bytes(data) != good:
                        yield Case(what, bytes(data), "coherent")


def foreign(good: bytes) -> Iterator[Case]:
    """What is no file of the format at all, some of it beginning like one."""
    draw = seeded()
    size = max(len(good), 64)
    yield Case("an empty file", b"", "refused")
    for what, byte in {"zeros": b"\0", "ones": b"\xff", "blanks": b" ", "braces": b"{"}.items():
        yield Case(f"nothing but {what}", byte * size, "refused")
    for i, length in enumerate((1, 7, 8, 9, 64, size, 4096)):
        yield Case(f"{length} random bytes ({i})", draw.randbytes(length), "refused")
    for kept in (1, 4, 8, 9, 12, 16, 24, 32):
        if kept < len(good):
            noise = draw.randbytes(size - kept)
            what = f"its first {kept} bytes and then random ones"
            yield Case(what, good[:kept] + noise, "refused")
            what = f"its first {kept} bytes and then zeros"
            yield Case(what, good[:kept] + bytes(size - kept), "refused")
    yield Case("its bytes backwards", good[::-1], "refused")
