"""The members of a zip archive, by strict rules: every byte has one owner; nothing is said twice.

The format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT. A zip says most things
twice, before each member and in the directory at its end, and readers differ in which they believe.
Here both must agree, members must follow each other without gaps from the first byte on, and the
directory must end where its end record begins.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_numpy.ending import broken, find_end
from hardpoint_numpy.records import (
    CENTRAL,
    CENTRAL_MAGIC,
    DEFLATED,
    DESCRIPTOR_MAGIC,
    FULL16,
    FULL32,
    LOCAL,
    LOCAL_MAGIC,
    STORED,
    UTF8,
    ZIP64,
)
from hardpoint_numpy.refuse import refuse, show

_DESCRIPTOR = 1 << 3
# What else a flag may say: how hard the packer tried (bits 1 and 2). Encryption is no such thing.
_KNOWN_FLAGS = UTF8 | _DESCRIPTOR | 0b110


class Member(NamedTuple):
    """One file of the archive.

    :param begin: byte of the archive at which its content (packed, if it is) begins.
    :param packed: bytes of it in the archive.
    :param size: bytes of the content.
    """

    name: str
    method: int
    crc: int
    begin: int
    packed: int
    size: int


class _Entry(NamedTuple):
    """A member as the directory has it."""

    raw: bytes
    name: str
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    at: int


def read_members(source: Source) -> tuple[list[Member], bytes]:
    """The members in the order of their bytes, and the comment of the archive.

    Reads the directory, and 30 bytes and a name of each member.

    :raises WeightsError: it is no zip archive, or breaks a rule.
    """
    found = find_end(source)
    raw = source.read(found.directory, found.end - found.directory)
    entries = sorted(_entries(raw, found.members, source.name), key=lambda entry: entry.at)
    members = []
    at = 0
    for i, entry in enumerate(entries):
        if entry.at != at:
            raise refuse(
                source.name,
                f"the archive is broken at {show(entry.name)}",
                f"it begins at byte {entry.at}, and what is before it ends at byte {at}",
            )
        limit = entries[i + 1].at if i + 1 < len(entries) else found.directory
        member, at = _member(source, entry, limit)
        members.append(member)
    if at != found.directory:
        raise refuse(
            source.name,
            "the archive is broken",
            f"its members end at byte {at}, and its directory begins at byte {found.directory}",
        )
    return members, found.comment


def _entries(raw: bytes, count: int, file: str) -> list[_Entry]:
    at = 0
    entries: list[_Entry] = []
    names: set[bytes] = set()
    for _ in range(count):
        if len(raw) - at < CENTRAL.size:
            raise broken(file, "its directory ends early")
        (
            magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length,
            comment_length, disk, _, _, begin,
        ) = CENTRAL.unpack_from(raw, at)  # fmt: skip
        at += CENTRAL.size
        end = at + name_length + extra_length + comment_length
        if magic != CENTRAL_MAGIC or end > len(raw):
            raise broken(file, "its directory is cut short, or none")
        name = raw[at : at + name_length]
        extra = raw[at + name_length : at + name_length + extra_length]
        at = end
        size, packed, begin, disk = _widen(extra, [size, packed, begin, disk], file)
        text = _checked(name, flags, method, disk, file)
        if method == STORED and packed != size:
            raise broken(file, f"{show(text)} is stored as it is, in {packed} bytes for {size}")
        if name in names:
            raise broken(file, f"two members are called {show(text)}")
        names.add(name)
        entries.append(_Entry(name, text, flags, method, crc, packed, size, begin))
    if at != len(raw):
        raise broken(file, f"{len(raw) - at} bytes follow the last member of its directory")
    return entries


def _checked(name: bytes, flags: int, method: int, disk: int, file: str) -> str:
    """The name, if the member is one that we read."""
    try:
        # Without the flag it may be in any code page: what is not ASCII then, is anything.
        text = name.decode("utf-8" if flags & UTF8 else "ascii")
    except UnicodeDecodeError as error:
        raise broken(file, f"the name {show(name)} does not tell its encoding") from error
    if "\0" in text:
        raise broken(file, f"the name {show(text)} holds a NUL, at which some readers end it")
    if flags & 1:
        raise refuse(
            file,
            f"{show(text)} cannot be read",
            "it is encrypted",
            "decrypt the archive first, and pack it again with numpy.savez",
        )
    if flags & ~_KNOWN_FLAGS or disk:
        raise broken(file, f"{show(text)} has flags {flags:#06x}, and is on disk {disk}")
    if method not in (STORED, DEFLATED):
        raise refuse(
            file,
            f"{show(text)} cannot be read",
            f"it is packed by method {method}; numpy.savez stores, savez_compressed deflates",
            "pack it again with numpy.savez",
        )
    return text


def _widen(extra: bytes, numbers: list[int], file: str) -> list[int]:
    """``numbers`` (32 bits each, the last of 16), the full ones replaced from the extra field."""
    wide = _zip64(extra, file)
    full = [FULL32] * (len(numbers) - 1) + [FULL16] if len(numbers) == 4 else [FULL32] * 2
    at = 0
    made = []
    for number, limit in zip(numbers, full, strict=True):
        width = 4 if limit == FULL16 else 8
        if number == limit and wide is not None:
            part = wide[at : at + width]
            if len(part) < width:
                raise broken(file, "a field of large numbers is cut short")
            number = int.from_bytes(part, "little")
            at += width
        made.append(number)
    return made


def _zip64(extra: bytes, file: str) -> bytes | None:
    found = None
    at = 0
    while len(extra) - at >= 4:
        kind, length = struct.unpack_from("<2H", extra, at)
        if at + 4 + length > len(extra):
            break
        if kind == ZIP64:
            if found is not None:
                raise broken(file, "a member has two fields of large numbers")
            found = extra[at + 4 : at + 4 + length]
        at += 4 + length
    # Rests of fewer than four bytes, and zeros, are what aligners leave.
    if extra[at:].strip(b"\0"):
        raise broken(file, "the extra fields of a member are cut short")
    return found


def _member(source: Source, entry: _Entry, limit: int) -> tuple[Member, int]:
    """The member whose local header is at ``entry.at``, and where all of it ends.

    :param limit: where the next thing begins.
    """

    def differs(cause: str) -> WeightsError:
        return refuse(source.name, f"the archive is broken at {show(entry.name)}", cause)

    room = limit - entry.at
    head = source.read(entry.at, min(max(room, 0), LOCAL.size + len(entry.raw)))
    if len(head) < LOCAL.size + len(entry.raw):
        raise differs("it overlaps what comes after it")
    fields = LOCAL.unpack_from(head)
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = fields
    name = head[LOCAL.size :]
    if magic != LOCAL_MAGIC or name_length != len(entry.raw) or name != entry.raw:
        raise differs("the directory says that it begins there, and something else does")
    begin = entry.at + LOCAL.size + name_length + extra_length
    if begin + entry.packed > limit:
        raise differs(
            f"its {entry.packed} bytes from byte {begin} on reach past byte {limit}, where"
            " something else begins"
        )
    if extra_length:
        extra = source.read(begin - extra_length, extra_length)
        size, packed = _widen(extra, [size, packed], source.name)
    said = (flags, method, crc, packed, size)
    real = (entry.flags, entry.method, entry.crc, entry.packed, entry.size)
    # What is written to a pipe has its numbers after the data.
    later = bool(flags & _DESCRIPTOR) and said[2:] in ((0, 0, 0), (0, FULL32, FULL32))
    if said != real and not (later and said[:2] == real[:2]):
        raise differs("what stands before it and what the directory says are not the same")
    member = Member(entry.name, entry.method, entry.crc, begin, entry.packed, entry.size)
    end = begin + entry.packed
    if flags & _DESCRIPTOR:
        end = _skip_descriptor(source, entry, end, limit, differs("its numbers after it are none"))
    return member, end


def _skip_descriptor(
    source: Source, entry: _Entry, at: int, limit: int, wrong: WeightsError
) -> int:
    """Where the numbers after a member end; they must be those of the directory."""
    length = limit - at
    if length not in (12, 16, 20, 24):
        raise wrong
    raw = source.read(at, length)
    if length in (16, 24):
        if raw[:4] != DESCRIPTOR_MAGIC:
            raise wrong
        raw = raw[4:]
    if struct.unpack("<3L" if len(raw) == 12 else "<LQQ", raw) != (
        entry.crc, entry.packed, entry.size,
    ):  # fmt: skip
        raise wrong
    return limit
