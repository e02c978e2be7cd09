"""Small GGUF files; the golden ones are of tens of kibibytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from hardpoint_gguf.types import BY_NUMBER


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _file(pairs: list[bytes], tensors: list[tuple[str, int, tuple[int, ...], int]]) -> bytes:
    """``tensors``: name, type, sizes (innermost first), bytes."""
    made = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs)
    at, data = 0, b""
    for name, kind, sizes, nbytes in tensors:
        made += _text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, at)
        data += bytes(i % 251 for i in range(nbytes))
        data += bytes(-len(data) % 32)
        at = len(data)
    return made + bytes(-len(made) % 32) + data


def made() -> Iterator[bytes]:
    """A file of metadata of each kind, a plain one, and one for each type of tensor."""
    numbers = [
        (0, "<B", 1),
        (5, "<i", -1),
        (6, "<f", 0.5),
        (7, "<B", 1),
        (10, "<Q", 1 << 60),
        (12, "<d", 2.5),
    ]
    pairs = [
        _text(f"k{kind}") + struct.pack("<I", kind) + struct.pack(form, v)
        for kind, form, v in numbers
    ]
    pairs.append(_text("s") + struct.pack("<I", 8) + _text("text"))
    pairs.append(_text("a") + struct.pack("<IIQ", 9, 8, 2) + _text("x") + _text("y"))
    pairs.append(_text("n") + struct.pack("<IIQIQ", 9, 9, 1, 5, 2) + struct.pack("<ii", 1, 2))
    pairs.append(_text("general.alignment") + struct.pack("<II", 4, 32))
    yield _file(pairs, [("w", 0, (4, 2), 32), ("v", 24, (5,), 5)])
    for number, kind in sorted(BY_NUMBER.items()):
        yield _file([], [(kind.name, number, (kind.block, 2), 2 * kind.nbytes)])
