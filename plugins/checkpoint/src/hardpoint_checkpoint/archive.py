"""The zip archive of a checkpoint: stored members, back to back, each told twice alike.

A zip file says everything twice, in its directory at the end and in a header before each member,
and readers that believe one or the other see two files in one. Here both must agree, and every byte
must belong to the directory or to one member.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_checkpoint.directory import Entry, read_directory
from hardpoint_checkpoint.refuse import refuse, show

if TYPE_CHECKING:
    import torch

_LOCAL = struct.Struct("<4s5H3I2H")
_LOCAL_SIGNATURE = b"PK\x03\x04"
_FULL = 0xFFFFFFFF
_DESCRIBED = 0x8
# What may follow the data where the header says so: sizes of 4 or 8 bytes, with a signature or not.
_DESCRIPTORS = frozenset({0, 12, 16, 20, 24})
# Headers that are nearer to each other are read at once, with what is between.
_NEAR = 1 << 16


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the archive.

    :param begin: byte of the file at which its data begins.
    """

    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class Archive:
    """The members of a file by name, without the folder that all of them are in."""

    root: str
    members: Mapping[str, Member]


def read_archive(source: Source) -> Archive:
    """Check the directory and all headers; no member is read.

    :raises WeightsError: it is no plain archive, or its two descriptions disagree.
    """
    entries, directory_at = read_directory(source)
    entries.sort(key=lambda entry: entry.at)
    members: dict[str, Member] = {}
    raw = _headers(source, entries, directory_at)
    end = 0
    for i, (entry, header) in enumerate(zip(entries, raw, strict=True)):
        begin = _check(source.name, entry, header)
        if entry.at != end:
            overlap = "overlaps the one before" if entry.at < end else f"leaves {entry.at - end}"
            rest = "" if entry.at < end else " bytes that no member has"
            raise _broken(source.name, f"member {show(entry.name)} {overlap}{rest}")
        following = entries[i + 1].at if i + 1 < len(entries) else directory_at
        gap = following - begin - entry.size
        if gap not in (_DESCRIPTORS if entry.flags & _DESCRIBED else {0}):
            how = "overlaps the next" if gap < 0 else f"is followed by {gap} bytes that no one has"
            raise _broken(source.name, f"member {show(entry.name)} {how}")
        end = following
        members[entry.name] = Member(begin, entry.size)
    if end != directory_at:
        raise _broken(source.name, f"its {directory_at} bytes before the directory are no member's")
    return _within_root(source.name, members)


def _within_root(name: str, members: Mapping[str, Member]) -> Archive:
    root = next(iter(members), "").partition("/")[0]
    strangers = [member for member in members if not member.startswith(f"{root}/")]
    if strangers or not root:
        raise refuse(
            name,
            "the zip archive is no checkpoint",
            f"member {show(strangers[0])} is in no folder with the others"
            if strangers
            else "it is empty",
            "name a file that torch.save wrote",
        )
    return Archive(root, {key[len(root) + 1 :]: member for key, member in members.items()})


def _headers(source: Source, entries: list[Entry], end: int) -> list[memoryview]:
    """The header of each member, up to the end of its name: near ones by one read, all at once."""
    import torch

    from hardpoint.storage.gather import gather, piece

    # [first byte, byte after the last]
    stretches: list[list[int]] = []
    for entry in entries:
        last = entry.at + _LOCAL.size + len(entry.raw_name)
        if last > end:
            raise _broken(source.name, f"member {show(entry.name)} runs into the directory")
        if stretches and entry.at - stretches[-1][1] < _NEAR:
            stretches[-1][1] = max(last, stretches[-1][1])
        else:
            stretches.append([entry.at, last])
    buffers = [torch.empty(last - first, dtype=torch.uint8) for first, last in stretches]
    gather(
        piece(source, first, buffer) for (first, _), buffer in zip(stretches, buffers, strict=True)
    )
    views = [_bytes(buffer) for buffer in buffers]
    found, turn = [], 0
    for entry in entries:
        while entry.at >= stretches[turn][1]:
            turn += 1
        first = entry.at - stretches[turn][0]
        found.append(views[turn][first : first + _LOCAL.size + len(entry.raw_name)])
    return found


def _bytes(buffer: torch.Tensor) -> memoryview:
    import ctypes

    if not buffer.numel():
        return memoryview(b"")
    return memoryview(ctypes.string_at(buffer.data_ptr(), buffer.numel()))


def _check(file: str, entry: Entry, header: memoryview) -> int:
    """Byte at which the member's data begins, if its own header says what the directory says."""
    (signature, _, flags, method, _, _, _, packed, size, name_length, extra_length) = (
        _LOCAL.unpack_from(header)
    )
    told = {
        "signature": (signature, _LOCAL_SIGNATURE),
        "flags": (flags, entry.flags),
        "method": (method, 0),
        "name": (bytes(header[_LOCAL.size :]), entry.raw_name),
        "length of the name": (name_length, len(entry.raw_name)),
    }
    # Zero: they follow the data. All ones: they are larger than this field.
    if not (flags & _DESCRIBED and packed == size == 0):
        told["size"] = (size, entry.size if size != _FULL else size)
        told["compressed size"] = (packed, entry.size if packed != _FULL else packed)
    for what, (here, there) in told.items():
        if here != there:
            raise _broken(
                file,
                f"the {what} of member {show(entry.name)} is {show(here)} in its own header and"
                f" {show(there)} in the directory",
            )
    return int(entry.at + _LOCAL.size + name_length + extra_length)


def _broken(file: str, cause: str) -> WeightsError:
    return refuse(file, "the zip archive is broken", cause)
