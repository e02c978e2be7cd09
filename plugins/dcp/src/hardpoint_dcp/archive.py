"""One item of a ``.distcp`` file: a zip that ``torch.save`` made, standing amid the file.

Only what PyTorch writes is read: members are stored, not compressed, and each stands where both of
the zip's directories say. Layout: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_dcp.metadata import Place
from hardpoint_dcp.refuse import refuse, show

_LOCAL = struct.Struct("<IHHHHHIIIHH")
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END = struct.Struct("<IHHHHIIH")
_END64 = struct.Struct("<IQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<IIQI")
_SIGNATURES = (0x04034B50, 0x02014B50, 0x06054B50, 0x06064B50)
_MAX32 = 0xFFFFFFFF
_UTF8_OR_DESCRIPTOR = 0x0808
# torch.save writes some seven members.
_MAX_MEMBERS = 64
_MAX_DIRECTORY = 1 << 16
_TAIL = 4096


class _Member(NamedTuple):
    name: bytes
    start: int
    size: int


class Archive:
    """The members of the zip at ``place`` of ``source``.

    :param what: of what it is the item, for messages.
    :raises WeightsError: it is no zip of ``torch.save``, or goes beyond its place or the file.
    """

    def __init__(self, source: Source, place: Place, what: str) -> None:
        self._source, self._place, self._what = source, place, what
        if place.offset + place.length > source.size:
            raise refuse(
                source.name,
                f"{show(what)} is cut short",
                f"it should take the bytes up to {place.offset + place.length}, and the file has"
                f" {source.size}",
            )
        self._tail_at = max(0, place.length - _TAIL)
        self._tail = source.read(place.offset + self._tail_at, place.length - self._tail_at)
        members = self._directory()
        root = next(
            (name[: -len("data.pkl")] for name in members if name.endswith("/data.pkl")), ""
        )
        if not root or root.count("/") != 1:
            raise self.broken("it has no data.pkl")
        self._root, self._members = root, members

    def broken(self, cause: str) -> WeightsError:
        """The error to raise about this item."""
        return refuse(
            self._source.name, f"{show(self._what)}, at byte {self._place.offset}, is broken", cause
        )

    def __contains__(self, name: str) -> bool:
        return self._root + name in self._members

    def locate(self, name: str) -> tuple[int, int]:
        """First byte (of the whole file) and size of a member.

        :raises WeightsError: there is none, or its own header says something else.
        """
        member = self._members.get(self._root + name)
        if member is None:
            raise self.broken(f"it has no {show(name)}")
        header = self._read(member.start, _LOCAL.size)
        signature, _, flags, method, *_, name_size, extra_size = _LOCAL.unpack(header)
        first = member.start + _LOCAL.size + name_size + extra_size
        if signature != _SIGNATURES[0] or method or flags & ~_UTF8_OR_DESCRIPTOR:
            raise self.broken(f"the header of {show(name)} is damaged")
        if self._read(member.start + _LOCAL.size, name_size) != member.name:
            raise self.broken(f"{show(name)} has another name in its own header")
        if first + member.size > self._place.length:
            raise self.broken(f"{show(name)} goes beyond its end")
        return self._place.offset + first, member.size

    def read(self, name: str, most: int) -> bytes:
        """The content of a member.

        :raises WeightsError: as :meth:`locate`, or it has more than ``most`` bytes.
        """
        at, size = self.locate(name)
        if size > most:
            raise self.broken(f"{show(name)} has {size} bytes; at most {most} are read")
        return self._source.read(at, size)

    def _read(self, at: int, count: int) -> bytes:
        if not 0 <= at <= at + count <= self._place.length:
            raise self.broken(f"{count} bytes at {at} are outside of it")
        if at >= self._tail_at:
            return self._tail[at - self._tail_at : at - self._tail_at + count]
        return self._source.read(self._place.offset + at, count)

    def _directory(self) -> dict[str, _Member]:
        start, size, count = self._end()
        if count > _MAX_MEMBERS or size > _MAX_DIRECTORY:
            raise self.broken(
                f"it has {count} members in {size} bytes, more than torch.save writes"
            )
        data = self._read(start, size)
        at, found = 0, {}
        for _ in range(count):
            if at + _CENTRAL.size > size:
                raise self.broken("its directory is cut short")
            fields = _CENTRAL.unpack_from(data, at)
            flags, method, packed, full = fields[3], fields[4], fields[8], fields[9]
            name_size, extra_size, comment_size, first = *fields[10:13], fields[16]
            raw = data[at + _CENTRAL.size : at + _CENTRAL.size + name_size]
            extra = data[at + _CENTRAL.size + name_size :][:extra_size]
            at += _CENTRAL.size + name_size + extra_size + comment_size
            full, packed, first = _widen(extra, (full, packed, first))
            name = raw.decode("utf-8", "replace")
            if fields[0] != _SIGNATURES[1] or at > size:
                raise self.broken("its directory is damaged")
            if method or flags & ~_UTF8_OR_DESCRIPTOR or packed != full:
                raise self.broken(f"its member {show(name)} is compressed or encrypted")
            if name in found:
                raise self.broken(f"it has two members {show(name)}")
            found[name] = _Member(raw, first, full)
        if at != size:
            raise self.broken("its directory is damaged")
        return found

    def _end(self) -> tuple[int, int, int]:
        """Start and size of the directory, and how many members it has."""
        at = self._place.length - _END.size
        if at < 0:
            raise self.broken(f"it has only {self._place.length} bytes")
        fields = _END.unpack(self._read(at, _END.size))
        if fields[0] != _SIGNATURES[2] or fields[7]:
            raise self.broken("it does not end as a zip does")
        count, size, start = fields[4:7]
        if at >= _LOCATOR64.size + _END64.size:
            locator, _, wide_at, _ = _LOCATOR64.unpack(
                self._read(at - _LOCATOR64.size, _LOCATOR64.size)
            )
            if locator == 0x07064B50:
                at -= _LOCATOR64.size + _END64.size
                wide = _END64.unpack(self._read(at, _END64.size))
                if wide[0] != _SIGNATURES[3] or wide_at != at:
                    raise self.broken("its zip64 end is damaged")
                count, size, start = wide[7:10]
        if start + size != at:
            raise self.broken("its directory is not where its end says")
        return start, size, count


def _widen(extra: bytes, values: tuple[int, int, int]) -> list[int]:
    """Numbers of 0xFFFFFFFF stand for those of the zip64 field; torch writes it first."""
    wide = []
    at, end = 4, 4 + int.from_bytes(extra[2:4], "little") if extra[:2] == b"\x01\x00" else 0
    for value in values:
        if value == _MAX32 and at + 8 <= min(end, len(extra)):
            value = int.from_bytes(extra[at : at + 8], "little")
            at += 8
        wide.append(value)
    return wide
