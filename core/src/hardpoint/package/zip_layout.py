"""The zip container, parsed strictly: every byte of the file belongs to exactly one thing.

Python's ``zipfile`` and the readers in PyTorch accept much (junk before, between and after entries,
names that differ between the two directories, compressed members that a mapping reader would take
for weights), and two lenient readers may see two different files. This one accepts only what
PyTorch's writer and ours emit. Layout: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.
"""

from __future__ import annotations

import re
import stat
import struct
from typing import NamedTuple

from hardpoint.package.refusal import MalformedError, first_twice

LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END = struct.Struct("<IHHHHIIH")
END64 = struct.Struct("<IQHHIIQQQQ")
LOCATOR64 = struct.Struct("<IIQI")
DESCRIPTOR = struct.Struct("<IIII")
DESCRIPTOR64 = struct.Struct("<IIQQ")

LOCAL_SIGNATURE = 0x04034B50
CENTRAL_SIGNATURE = 0x02014B50
END_SIGNATURE = 0x06054B50
END64_SIGNATURE = 0x06064B50
LOCATOR64_SIGNATURE = 0x07064B50
DESCRIPTOR_SIGNATURE = 0x08074B50

UTF8_NAME = 0x0800
HAS_DESCRIPTOR = 0x0008
ENCRYPTED = 0x0001
ZIP64_FIELD = 0x0001
MAX16 = 0xFFFF
MAX32 = 0xFFFFFFFF

ALIGNMENT = 64
MAX_ENTRIES = 100_000
MAX_NAME = 1024

_DRIVE = re.compile(r"[A-Za-z]:")
_OTHER_TOOL = "save it with hardpoint or torch.export.save, not with a zip tool"


class Entry(NamedTuple):
    """One file in the archive: where its bytes lie.

    :param name: without the archive's root folder.
    :param offset: of the first byte, from the start of the file.
    :param size: bytes.
    :param crc32: of the content, as the directory says.
    """

    name: str
    offset: int
    size: int
    crc32: int


class _Listed(NamedTuple):
    """One record of the central directory."""

    full_name: bytes
    name: str
    flags: int
    crc32: int
    size: int
    start: int


def parse(data: memoryview) -> tuple[str, dict[str, Entry]]:
    """The root folder's name, and the entries by name in the order of the directory.

    :raises MalformedError: anything that is not exactly as it should be.
    """
    start, end, count = _directory(data)
    root = ""
    listed: list[_Listed] = []
    at = start
    for _ in range(count):
        record, folder, at = _central(data, at, end)
        if root and folder != root:
            raise MalformedError(f"its entries stand in two root folders, {root!r} and {folder!r}")
        root = folder
        listed.append(record)
    if at != end:
        raise MalformedError(f"{end - at} bytes of its directory belong to no entry")
    return root, _locate(data, listed, start)


def check_name(name: str) -> None:
    """:raises MalformedError: a name that could point outside a folder, or read as two names."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > MAX_NAME:
        raise MalformedError(f"an entry's name is empty or longer than {MAX_NAME} bytes")
    if not name.isprintable() or "\\" in name:
        raise MalformedError(f"the entry name {name!r} holds a backslash or a control character")
    for part in name.split("/"):
        if part in ("", ".", "..") or _DRIVE.match(part):
            raise MalformedError(f"the entry name {name!r} is not a plain relative path")


def _directory(data: memoryview) -> tuple[int, int, int]:
    """(start, end, number of records) of the central directory."""
    tail = len(data) - END.size
    if tail < 0:
        raise MalformedError(
            f"it has only {len(data)} bytes: it is truncated, or no package at all"
        )
    signature, disk, first_disk, here, count, size, start, comment = END.unpack_from(data, tail)
    if signature != END_SIGNATURE or comment:
        raise MalformedError(
            "it does not end as a zip archive does: it is truncated, has bytes appended, or is no "
            "package at all"
        )
    end = tail
    ends32 = (here, count, size, start)
    locator = tail - LOCATOR64.size
    if locator >= 0 and data[locator : locator + 4] == LOCATOR64_SIGNATURE.to_bytes(4, "little"):
        end, (here, count, size, start) = _end64(data, locator)
        limits = (MAX16, MAX16, MAX32, MAX32)
        wide = (here, count, size, start)
        for narrow, limit, full in zip(ends32, limits, wide, strict=True):
            if narrow not in (full, limit):
                raise MalformedError("its two end records contradict each other")
    if disk or first_disk or here != count:
        raise MalformedError("it is one part of an archive in several parts")
    if count > MAX_ENTRIES:
        raise MalformedError(f"it claims {count} entries; at most {MAX_ENTRIES} are accepted")
    if start + size != end or count * CENTRAL.size > size:
        raise MalformedError("its directory is not where, or not as large as, its end record says")
    return start, end, count


def _end64(data: memoryview, locator: int) -> tuple[int, tuple[int, int, int, int]]:
    """Where the zip64 end record starts, and (here, count, size, start) of it."""
    _, disk, at, disks = LOCATOR64.unpack_from(data, locator)
    if at != locator - END64.size or at < 0 or disk or disks not in (0, 1):
        raise MalformedError("its zip64 end record is not where it should be")
    fields = END64.unpack_from(data, at)
    signature, length, _, _, disk, first_disk, here, count, size, start = fields
    if signature != END64_SIGNATURE or length != END64.size - 12 or disk or first_disk:
        raise MalformedError("its zip64 end record is damaged")
    return at, (here, count, size, start)


def _central(data: memoryview, at: int, end: int) -> tuple[_Listed, str, int]:
    """One record of the directory, its root folder, and where the next record starts."""
    if at + CENTRAL.size > end:
        raise MalformedError("its directory ends in the middle of a record")
    fields = CENTRAL.unpack_from(data, at)
    signature, _, _, flags, method, _, _, crc, packed, size = fields[:10]
    name_size, extra_size, comment_size, disk, _, attributes, start = fields[10:]
    at += CENTRAL.size
    if signature != CENTRAL_SIGNATURE or at + name_size + extra_size + comment_size > end:
        raise MalformedError("its directory is damaged")
    full_name = bytes(data[at : at + name_size])
    folder, name = _split_name(full_name)
    extra = _extra_fields(data[at + name_size : at + name_size + extra_size], name)
    size, packed, start = _widen(extra.get(ZIP64_FIELD), (size, packed, start), name)
    if flags & ENCRYPTED:
        raise MalformedError(f"entry {name!r} is encrypted", remedy=_OTHER_TOOL)
    if method or packed != size:
        raise MalformedError(
            f"entry {name!r} is compressed; entries of a package are stored, so that they can be "
            "mapped",
            remedy=_OTHER_TOOL,
        )
    if flags & ~(UTF8_NAME | HAS_DESCRIPTOR) or disk or comment_size:
        raise MalformedError(f"entry {name!r} uses zip features that a package does not have")
    if stat.S_IFMT(attributes >> 16) not in (0, stat.S_IFREG) or attributes & 0x10:
        raise MalformedError(f"entry {name!r} is not a regular file (a link, a folder or a device)")
    return _Listed(full_name, name, flags, crc, size, start), folder, at + name_size + extra_size


def _split_name(full_name: bytes) -> tuple[str, str]:
    """(root folder, the rest) of an entry's name."""
    try:
        text = full_name.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError(f"the entry name {full_name[:80]!r} is not UTF-8") from None
    check_name(text)
    folder, slash, name = text.partition("/")
    if not slash:
        raise MalformedError(f"entry {text!r} stands outside the archive's root folder")
    return folder, name


def _extra_fields(extra: memoryview, name: str) -> dict[int, memoryview]:
    """The extra fields of a header by their number."""
    found: dict[int, memoryview] = {}
    at = 0
    while at < len(extra):
        number = int.from_bytes(extra[at : at + 2], "little")
        size = int.from_bytes(extra[at + 2 : at + 4], "little")
        if at + 4 + size > len(extra) or number in found:
            raise MalformedError(f"the header of entry {name!r} is damaged (extra fields)")
        found[number] = extra[at + 4 : at + 4 + size]
        at += 4 + size
    return found


def _widen(field: memoryview | None, values: tuple[int, ...], name: str) -> list[int]:
    """``values``; those that are 0xFFFFFFFF stand for the 64-bit numbers in ``field``."""
    wide = []
    at = 0
    for value in values:
        if value == MAX32 and field is not None:
            if at + 8 > len(field):
                raise MalformedError(f"the header of entry {name!r} is damaged (zip64 field)")
            value = int.from_bytes(field[at : at + 8], "little")
            at += 8
        wide.append(value)
    return wide


def _locate(data: memoryview, listed: list[_Listed], end: int) -> dict[str, Entry]:
    """Find each entry's bytes; together with their headers they must fill ``[0, end)``."""
    found: dict[str, Entry] = {}
    expected = 0
    before = "the start of the file"
    for record in sorted(listed, key=lambda item: item.start):
        if record.start + LOCAL.size > end:
            raise MalformedError(f"entry {record.name!r} claims to start beyond the last entry")
        if record.start < expected:
            raise MalformedError(f"entry {record.name!r} overlaps {before}")
        if record.start > expected:
            raise MalformedError(
                f"{record.start - expected} bytes after {before} belong to no entry"
            )
        entry, expected = _local(data, record, end)
        before = f"entry {record.name!r}"
        found[record.name] = entry
    if expected != end:
        raise MalformedError(f"{end - expected} bytes after {before} belong to no entry")
    if len(found) != len(listed):
        twice = first_twice(record.name for record in listed)
        raise MalformedError(f"it holds two entries named {twice!r}")
    return {record.name: found[record.name] for record in listed}


def _local(data: memoryview, record: _Listed, end: int) -> tuple[Entry, int]:
    """The entry, checked against its own header; and where the next one must start."""
    outside = MalformedError(f"entry {record.name!r} claims bytes beyond the end of the file")
    at = record.start
    signature, _, flags, method, _, _, crc, packed, size, name_size, extra_size = LOCAL.unpack_from(
        data, at
    )
    at += LOCAL.size
    first = at + name_size + extra_size
    last = first + record.size
    if last > end:
        raise outside
    differs = MalformedError(f"entry {record.name!r} has two headers that contradict each other")
    if signature != LOCAL_SIGNATURE or flags != record.flags or method:
        raise differs
    if data[at : at + name_size] != record.full_name:
        raise differs
    zip64 = _extra_fields(data[at + name_size : first], record.name).get(ZIP64_FIELD)
    size, packed = _widen(zip64, (size, packed), record.name)
    said = (crc, packed, size)
    truth = (record.crc32, record.size, record.size)
    if flags & HAS_DESCRIPTOR:
        if said not in (truth, (0, 0, 0)):
            raise differs
        layout = DESCRIPTOR if zip64 is None else DESCRIPTOR64
        if last + layout.size > end:
            raise outside
        if layout.unpack_from(data, last) != (DESCRIPTOR_SIGNATURE, *truth):
            raise differs
        last += layout.size
    elif said != truth:
        raise differs
    if record.size and first % ALIGNMENT:
        raise MalformedError(
            f"entry {record.name!r} is not aligned to {ALIGNMENT} bytes, so it cannot be mapped",
            remedy=_OTHER_TOOL,
        )
    return Entry(record.name, first, record.size, record.crc32), last
