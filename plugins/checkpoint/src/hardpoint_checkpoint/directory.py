"""The directory at the end of a zip file, and its 64-bit form."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_checkpoint.refuse import refuse, show

MAX_MEMBERS = (1 << 18) + 64
_MAX_DIRECTORY = 64 << 20
_END = struct.Struct("<4s4H2IH")
_END_SIGNATURE = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sIQI")
_LOCATOR_SIGNATURE = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2I4Q")
_END64_SIGNATURE = b"PK\x06\x06"
_ENTRY = struct.Struct("<4s6H3I5H2I")
_ENTRY_SIGNATURE = b"PK\x01\x02"
_FULL, _FULL16 = 0xFFFFFFFF, 0xFFFF
_EXTRA64 = 1
_FOLDER = 0x10
_ENCRYPTED = 0x1 | 0x40 | 0x2000


@dataclass(frozen=True, slots=True)
class Entry:
    """One member, as the directory has it.

    :param at: byte of the file at which its header begins.
    """

    name: str
    raw_name: bytes
    flags: int
    size: int
    at: int


def _broken(file: str, cause: str) -> WeightsError:
    return refuse(file, "the zip archive is broken", cause)


def read_directory(source: Source) -> tuple[list[Entry], int]:
    """Its entries, and the byte at which it begins.

    :raises WeightsError: it is damaged, or a member is compressed, encrypted or there twice.
    """
    count, size, at = _find(source)
    name = source.name
    if count > MAX_MEMBERS or size > _MAX_DIRECTORY or count * _ENTRY.size > size:
        raise _broken(name, f"its directory says {count} members in {size} bytes")
    raw = source.read(at, size)
    entries: list[Entry] = []
    seen: set[str] = set()
    place = 0
    for _ in range(count):
        entry, place = _entry(name, raw, place)
        if entry.name in seen:
            raise _broken(name, f"member {show(entry.name)} is there twice")
        seen.add(entry.name)
        entries.append(entry)
    if place != size:
        raise _broken(name, f"its directory has {size - place} bytes after its last entry")
    return entries, at


def _find(source: Source) -> tuple[int, int, int]:
    """Count of entries, bytes and place of the directory."""
    name, end = source.name, source.size
    tail_at = max(0, end - _END.size - _LOCATOR.size - _END64.size)
    tail = source.read(tail_at, end - tail_at)
    if tail[-_END.size :][:4] != _END_SIGNATURE or len(tail) < _END.size:
        raise _broken(name, "it does not end with its directory: it is cut short, or continued")
    end_at = end - _END.size
    _, disk, first, here, count, size, at, comment = _END.unpack(tail[-_END.size :])
    if disk or first or here != count or comment:
        raise _broken(name, "it is one of several parts, or has a comment")
    after = end_at
    locator = tail[: -_END.size][-_LOCATOR.size :]
    if locator[:4] == _LOCATOR_SIGNATURE and len(locator) == _LOCATOR.size:
        after, *wide = _wide(source, locator, end_at - _LOCATOR.size)
        narrow = ((count, _FULL16), (size, _FULL), (at, _FULL))
        if any(a not in (b, full) for (a, full), b in zip(narrow, wide, strict=True)):
            raise _broken(name, "its directory is described twice, differently")
        count, size, at = wide
    if at + size != after:
        raise _broken(name, f"its directory of {size} bytes at {at} does not end at {after}")
    return count, size, at


def _wide(source: Source, locator: bytes, locator_at: int) -> tuple[int, int, int, int]:
    """Place of the 64-bit end, and what it says."""
    _, disk, at, disks = _LOCATOR.unpack(locator)
    if disk or disks > 1 or at + _END64.size != locator_at:
        raise _broken(source.name, "its 64-bit directory is not where it should be")
    raw = source.read(at, _END64.size)
    signature, length, _, _, disk, first, here, count, size, place = _END64.unpack(raw)
    if signature != _END64_SIGNATURE or length != _END64.size - 12 or disk or first:
        raise _broken(source.name, "its 64-bit directory is none")
    if here != count:
        raise _broken(source.name, "it is one of several parts")
    return at, count, size, place


def _entry(file: str, raw: bytes, place: int) -> tuple[Entry, int]:
    if place + _ENTRY.size > len(raw):
        raise _broken(file, "its directory ends within an entry")
    (signature, _, _, flags, method, _, _, _, packed, size, name_length, extra_length,
     comment_length, disk, _, attributes, at) = _ENTRY.unpack_from(raw, place)  # fmt: skip
    begin = place + _ENTRY.size
    end = begin + name_length + extra_length + comment_length
    if signature != _ENTRY_SIGNATURE or end > len(raw) or disk:
        raise _broken(file, f"byte {place} of its directory is no entry")
    raw_name = raw[begin : begin + name_length]
    try:
        name = raw_name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(file, f"a member's name is not UTF-8: {show(raw_name)}") from error
    extra = raw[begin + name_length : begin + name_length + extra_length]
    size, packed, at = _widened(file, name, extra, [size, packed, at])
    if flags & _ENCRYPTED:
        raise refuse(
            file,
            f"member {show(name)} is encrypted",
            "torch.save never encrypts",
            "decrypt the file first",
        )
    if method or packed != size:
        raise refuse(
            file,
            f"member {show(name)} is compressed",
            f"method {method}, {packed} bytes for {size}; torch.save stores them as they are, so"
            " that they can be mapped",
            "write the file again with torch.save",
        )
    if size and (attributes & _FOLDER or name.endswith("/")):
        # PyTorch without mmap=True leaves its tensors unwritten, without a word.
        raise _broken(file, f"member {show(name)} says that it is a folder, and holds {size} bytes")
    return Entry(name, raw_name, flags, size, at), end


def _widened(file: str, name: str, extra: bytes, numbers: list[int]) -> list[int]:
    """The numbers that do not fit 32 bits, from where they stand instead."""
    fields: dict[int, bytes] = {}
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        fields.setdefault(kind, extra[place + 4 : place + 4 + length])
        place += 4 + length
    wide = fields.get(_EXTRA64, b"")
    for i, number in enumerate(numbers):
        if number == _FULL:
            if len(wide) < 8:
                raise _broken(file, f"member {show(name)} lacks its 64-bit numbers")
            numbers[i], wide = int.from_bytes(wide[:8], "little"), wide[8:]
    return numbers
