"""Makes archives that no honest writer makes: an independent zip writer that lies on request."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from hardpoint.package.archive import Archive
from hardpoint.package.integrity import DIGEST, MANIFEST, finish_manifest
from hardpoint.package.strict_json import parse
from hardpoint.package.writer import ArchiveWriter

HEADER = [("archive_format", b"pt2"), ("archive_version", b"0"), ("byteorder", b"little")]


@dataclass
class Part:
    """One entry, with what its two headers say instead of the truth."""

    name: str | bytes
    data: bytes = b""
    root: str = "r/"
    method: int = 0
    flags: int = 0
    attributes: int = 0
    comment: bytes = b""
    local: dict[str, object] = field(default_factory=dict)  # name, flags, crc, packed, size
    central: dict[str, object] = field(default_factory=dict)  # name, crc, packed, size, start
    gap: bytes = b""  # between this entry and the one before
    align: int = 64
    extra: bytes = b""
    tail: bytes = b""  # after the data, e.g. a data descriptor

    @property
    def full(self) -> bytes:
        return self.name if isinstance(self.name, bytes) else (self.root + self.name).encode()

    def facts(self, said: dict[str, object]) -> tuple[bytes, int, int, int]:
        truth = {"name": self.full, "crc": zlib.crc32(self.data), "packed": len(self.data)}
        truth["size"] = len(self.data)
        truth |= said
        return truth["name"], truth["crc"], truth["packed"], truth["size"]


def standard(*parts: Part) -> list[Part]:
    """The parts, after the three entries that every PT2 archive has."""
    return [Part(name, data) for name, data in HEADER] + list(parts)


def forge(
    parts: list[Part], *, prefix: bytes = b"", suffix: bytes = b"", before_end: bytes = b"", **end
) -> bytes:
    """The bytes of an archive. `end` replaces fields of the end record: count, size, start..."""
    out = bytearray(prefix)
    starts = []
    for part in parts:
        out += part.gap
        start = len(out)
        starts.append(start)
        name, crc, packed, size = part.facts(part.local)
        flags = part.local.get("flags", part.flags)
        used = start + 30 + len(name) + len(part.extra) + 4
        padding = -used % part.align
        extra = part.extra + b"FB" + struct.pack("<H", padding) + bytes(padding)
        fields = (0x04034B50, 20, flags, part.method, 0, 0, crc, packed, size)
        out += struct.pack("<IHHHHHIIIHH", *fields, len(name), len(extra))
        out += name + extra + part.data + part.tail
    at = len(out)
    for part, start in zip(parts, starts, strict=True):
        name, crc, packed, size = part.facts(part.central)
        start = part.central.get("start", start)
        extra = part.central.get("extra", b"")
        fields = (0x02014B50, 20, 20, part.flags, part.method, 0, 0, crc, packed, size)
        lengths = (len(name), len(extra), len(part.comment))
        out += struct.pack("<IHHHHHHIIIHHHHHII", *fields, *lengths, 0, 0, part.attributes, start)
        out += name + extra + part.comment
    size = len(out) - at
    out += before_end
    said = {"disk": 0, "here": len(parts), "count": len(parts), "size": size, "start": at} | end
    comment = said.get("comment", b"")
    fields = (said["disk"], 0, said["here"], said["count"], said["size"], said["start"])
    out += struct.pack("<IHHHHIIH", 0x06054B50, *fields, len(comment))
    return bytes(out + comment + suffix)


def remake(source: Path, target: Path, changes: dict[str, bytes | None], **fields: object) -> Path:
    """Copy a package with some entries changed, added or (`None`) left out, and its manifest right.

    This is what an attacker does who knows the format: every hash fits.
    """
    with Archive.open(source) as archive, ArchiveWriter(target) as writer:
        ours = {MANIFEST, DIGEST, *writer.digests}
        for name in dict.fromkeys([*archive.entries, *changes]):
            data = changes[name] if name in changes else archive.view(name)
            if name not in ours and data is not None:
                writer.add(name, data)
        if MANIFEST in archive.entries:
            manifest = parse(archive.view(MANIFEST), what="manifest", max_bytes=1 << 30)
            del manifest["entries"]
            finish_manifest(writer, manifest | fields)
    return target
