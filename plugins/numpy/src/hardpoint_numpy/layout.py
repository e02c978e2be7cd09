"""An archive, laid out: each array's data at a multiple of 64, so that it is mapped aligned."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from hardpoint_numpy.records import (
    CENTRAL,
    CENTRAL_MAGIC,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_MAGIC,
    LOCATOR,
    LOCATOR_MAGIC,
    STORED,
    UTF8,
    ZIP64,
)

_ALIGNMENT = 64
# The extra field that Android's zipalign pads with: its alignment, then zeros.
_PADDING = 0xD935
_PADDING_HEAD = struct.Struct("<3H")
_VERSION = 20
_VERSION64 = 45
_UNIX = 3
_MODE = 0o100644 << 16
_DATE = 0x0021  # 1 January 1980: an archive of the same content has the same bytes
_SUFFIX = ".npy"


class Placed(NamedTuple):
    """A member and its place.

    :param header: of its array.
    :param at: byte at which it begins.
    :param begin: byte at which its content, the array's header, begins: a multiple of 64.
    """

    name: str
    raw: bytes
    header: bytes
    nbytes: int
    at: int
    begin: int

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return len(self.header) + self.nbytes

    @property
    def large(self) -> bool:
        """Whether its size takes more than 32 bits."""
        return self.size >= FULL32


def lay_out(arrays: Iterable[tuple[str, bytes, int]]) -> tuple[list[Placed], int]:
    """The place of each (name, header, bytes of data), and where the last ends."""
    at = 0
    places = []
    for name, header, nbytes in arrays:
        raw = (name + _SUFFIX).encode("utf-8")
        least = at + LOCAL.size + len(raw) + _PADDING_HEAD.size
        if len(header) + nbytes >= FULL32:
            least += 20
        begin = -(-least // _ALIGNMENT) * _ALIGNMENT
        place = Placed(name, raw, header, nbytes, at, begin)
        places.append(place)
        at = begin + place.size
    return places, at


def local_header(place: Placed, crc: int) -> bytes:
    """What stands before the content."""
    wide = struct.pack("<2H2Q", ZIP64, 16, place.size, place.size) if place.large else b""
    room = place.begin - place.at - LOCAL.size - len(place.raw) - len(wide)
    padding = _PADDING_HEAD.pack(_PADDING, room - 4, _ALIGNMENT) + bytes(room - _PADDING_HEAD.size)
    size = FULL32 if place.large else place.size
    head = LOCAL.pack(
        LOCAL_MAGIC, _version(place), _flags(place), STORED, 0, _DATE, crc, size, size,
        len(place.raw), len(wide) + room,
    )  # fmt: skip
    return head + place.raw + wide + padding


def directory(
    places: Sequence[Placed], checksums: Mapping[str, int], at: int, comment: bytes
) -> bytes:
    """What stands at byte ``at``, after the last member: of one length, whatever the checksums."""
    parts = []
    for place in places:
        numbers = [place.size, place.size] if place.large else []
        if place.at >= FULL32:
            numbers.append(place.at)
        wide = struct.pack(f"<2H{len(numbers)}Q", ZIP64, 8 * len(numbers), *numbers)
        wide = wide if numbers else b""
        size = FULL32 if place.large else place.size
        head = CENTRAL.pack(
            CENTRAL_MAGIC, _UNIX << 8 | _version(place), _version(place), _flags(place), STORED, 0,
            _DATE, checksums.get(place.name, 0), size, size, len(place.raw), len(wide), 0, 0, 0,
            _MODE, min(place.at, FULL32),
        )  # fmt: skip
        parts += [head, place.raw, wide]
    made = b"".join(parts)
    count, length = len(places), len(made)
    if count >= FULL16 or at >= FULL32 or length >= FULL32:
        made += END64.pack(
            END64_MAGIC, END64.size - 12, _UNIX << 8 | _VERSION64, _VERSION64, 0, 0, count, count,
            length, at,
        )  # fmt: skip
        made += LOCATOR.pack(LOCATOR_MAGIC, 0, at + length, 1)
    few = min(count, FULL16)
    end = END.pack(END_MAGIC, 0, 0, few, few, min(length, FULL32), min(at, FULL32), len(comment))
    return made + end + comment


def _version(place: Placed) -> int:
    return _VERSION64 if place.large or place.at >= FULL32 else _VERSION


def _flags(place: Placed) -> int:
    return 0 if place.raw.isascii() else UTF8
