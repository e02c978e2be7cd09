"""Members that are packed: no more of them is unpacked than their array's header can justify."""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Iterator

import torch

from hardpoint import WeightsError
from hardpoint.storage.buffers import allocate
from hardpoint.storage.source import Source
from hardpoint_numpy.directory import Member
from hardpoint_numpy.refuse import refuse, show

_READ = 1 << 20  # packed bytes at a time
_UNPACKED = 8 << 20
# Deflate makes at most 1032 bytes of one: https://zlib.net/zlib_tech.html
_MOST_FROM_A_BYTE = 1032


def check_ratio(member: Member, file: str) -> None:
    """Refuse a size that the packed bytes cannot unpack to, before anything is allocated for it.

    :raises WeightsError: it is such a size.
    """
    if member.size > (member.packed + 1) * _MOST_FROM_A_BYTE:
        raise refuse(
            file,
            f"the archive is broken at {show(member.name)}",
            f"{member.packed} packed bytes cannot hold {member.size}",
        )


def unpack_start(source: Source, member: Member, count: int) -> bytes:
    """The first ``count`` bytes of the content, or all where it has fewer.

    :raises WeightsError: it cannot be unpacked.
    """
    made = b""
    for part in _unpacked(source, member):
        made += part
        if len(made) >= count:
            break
    return made[:count]


def unpack(source: Source, member: Member, header: int) -> torch.Tensor:
    """The content after its first ``header`` bytes: uint8 ``[member.size - header]``.

    :raises WeightsError: it cannot be unpacked, or is not of the size and checksum stated.
    """
    data = allocate(member.size - header)
    memory = _memory(data)
    at, crc = -header, 0
    for part in _unpacked(source, member):
        crc = zlib.crc32(part, crc)
        kept = part[max(0, -at) :] if at < 0 else part
        if max(at, 0) + len(kept) > len(memory):
            raise _wrong(source, member, f"it unpacks to more than its {member.size} bytes")
        if kept:
            memory[max(at, 0) : max(at, 0) + len(kept)] = kept
        at += len(part)
    if at != len(memory):
        raise _wrong(source, member, f"it unpacks to {at + header} of its {member.size} bytes")
    if crc != member.crc:
        raise _wrong(source, member, "its checksum is another than the archive states")
    return data


def _memory(data: torch.Tensor) -> memoryview:
    if not data.numel():
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * data.numel()).from_address(data.data_ptr())).cast("B")


def _unpacked(source: Source, member: Member) -> Iterator[bytes]:
    """The content in pieces of bounded size."""
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    end = member.begin + member.packed
    try:
        for at in range(member.begin, end, _READ):
            left = source.read(at, min(_READ, end - at))
            while left:
                if machine.eof:
                    raise _wrong(source, member, "bytes follow its packed content")
                part = machine.decompress(left, _UNPACKED)
                left = machine.unconsumed_tail or machine.unused_data
                if part:
                    yield part
        while not machine.eof:
            part = machine.decompress(b"", _UNPACKED)
            if not part:
                raise _wrong(source, member, "its packed content ends early")
            yield part
    except zlib.error as error:
        raise _wrong(source, member, f"it cannot be unpacked: {error}") from error


def _wrong(source: Source, member: Member, cause: str) -> WeightsError:
    return refuse(source.name, f"the archive is broken at {show(member.name)}", cause)
