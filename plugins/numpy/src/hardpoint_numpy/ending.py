"""The end of a zip archive, where reading it begins."""

from __future__ import annotations

from typing import NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_numpy.records import (
    CENTRAL,
    END,
    END64,
    END64_MAGIC,
    END_MAGIC,
    FULL16,
    FULL32,
    LOCATOR,
    LOCATOR_MAGIC,
    MAX_MEMBERS,
)
from hardpoint_numpy.refuse import refuse

_MAX_COMMENT = 0xFFFF


class End(NamedTuple):
    """What the end of an archive says.

    :param directory: byte at which the directory begins; it reaches to ``end``.
    """

    members: int
    directory: int
    end: int
    comment: bytes


def broken(file: str, cause: str) -> WeightsError:
    """The error of an archive that breaks a rule."""
    return refuse(file, "the archive is broken", cause)


def find_end(source: Source) -> End:
    """The end record, of which there must be exactly one that reaches to the end of the file.

    :raises WeightsError: there is none, or what it says is not so.
    """
    length = min(source.size, END.size + _MAX_COMMENT)
    tail = source.read(source.size - length, length)
    places = []
    at = tail.find(END_MAGIC)
    while at >= 0:
        if (
            len(tail) - at >= END.size
            and END.unpack_from(tail, at)[-1] == len(tail) - at - END.size
        ):
            places.append(at)
        at = tail.find(END_MAGIC, at + 1)
    if len(places) != 1:
        cause = "it has more than one end" if places else "it does not end as an archive does"
        raise refuse(source.name, "the archive is broken or cut short", cause)
    (at,) = places
    _, disk, first, here, count, size, offset, _ = END.unpack_from(tail, at)
    comment = tail[at + END.size :]
    place = source.size - length + at
    end = place
    if FULL16 in (here, count) or FULL32 in (size, offset):
        end, disk, first, here, count, size, offset = _find_end64(source, place)
    if disk or first or here != count:
        raise broken(source.name, "it is one part of several")
    if count > MAX_MEMBERS:
        raise broken(source.name, f"it has {count} members; at most {MAX_MEMBERS} are allowed")
    if offset + size != end or count * CENTRAL.size > size:
        raise broken(
            source.name,
            f"its directory of {count} members is said to be {size} bytes at byte {offset}, and"
            f" ends at byte {end}",
        )
    return End(count, offset, end, comment)


def _find_end64(source: Source, place: int) -> tuple[int, ...]:
    """Place and fields of the larger end record, which comes before the usual one at ``place``."""
    at = place - LOCATOR.size
    if at < 0:
        raise broken(source.name, "it lacks the record of large archives")
    magic, disk, offset, disks = LOCATOR.unpack(source.read(at, LOCATOR.size))
    if magic != LOCATOR_MAGIC or disk or disks > 1 or offset + END64.size != at:
        raise broken(source.name, "it lacks the record of large archives")
    magic, size, _, _, number, first, here, count, length, start = END64.unpack(
        source.read(offset, END64.size)
    )
    if magic != END64_MAGIC or size != END64.size - 12:
        raise broken(source.name, "its record of large archives is none")
    return offset, number, first, here, count, length, start
