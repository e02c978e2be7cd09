"""Archives around fuzzed bytes, and mutations that keep what stands around them right."""

from __future__ import annotations

import io
import random
import zipfile
from collections.abc import Mapping

from target import Mutate


def archive(members: Mapping[str, bytes], *, packed: frozenset[str] = frozenset()) -> bytes:
    """A zip archive, with lengths and checksums that are right; ``packed`` members are deflated."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED if name in packed else zipfile.ZIP_STORED
            file.writestr(info, data)
    return made.getvalue()


def checkpoint(pickle: bytes) -> bytes:
    """A checkpoint whose pickle is that, with the storages ``"0"`` (16 bytes) and ``"1"`` (12)."""
    return archive({
        "x/data.pkl": pickle, "x/byteorder": b"little", "x/data/0": bytes(range(16)),
        "x/data/1": b"\0\1" * 6, "x/version": b"3\n",
    })  # fmt: skip


def pickle_of(data: bytes) -> bytes:
    """The pickle of a checkpoint that is a zip archive; nothing where that cannot be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            return next((file.read(n) for n in file.namelist() if n.endswith("/data.pkl")), b"")
    except Exception:  # damaged in any way: this only makes seeds
        return b""


def with_length(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Mutate the header of a safetensors file, or what follows it, and state the length it has."""
    length = int.from_bytes(data[:8], "little")
    draw = random.Random(seed)
    if draw.random() < 0.2 or not 0 < length <= len(data) - 8:
        return mutate(data, most)
    header, rest = data[8 : 8 + length], data[8 + length :]
    if draw.random() < 0.9:
        header = mutate(header, max(1, most - 8 - len(rest)))
    else:
        rest = mutate(rest, max(1, most - 8 - len(header)))
    return len(header).to_bytes(8, "little") + header + rest


def swapping_parts(data: bytes, most: int, seed: int, mutate: Mutate) -> bytes:
    """Often: replace a 4- or 8-byte number by one near a limit, which few mutations hit."""
    draw = random.Random(seed)
    if draw.random() < 0.7 or len(data) < 16:
        return mutate(data, most)
    changed = bytearray(data)
    width = draw.choice((1, 2, 4, 8))
    at = draw.randrange(len(changed) - width + 1)
    limit = 1 << (8 * width)
    near = (
        0,
        1,
        limit - 1,
        limit >> 1,
        (limit >> 1) - 1,
        len(data),
        len(data) - at,
        draw.getrandbits(4),
    )
    value = draw.choice(near) + draw.choice((0, 0, 1, -1))
    changed[at : at + width] = (value % limit).to_bytes(width, "little")
    return bytes(changed)
