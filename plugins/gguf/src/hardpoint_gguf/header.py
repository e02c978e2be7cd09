"""The header of a GGUF file, held to the file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

Every count is compared with the bytes that follow before anything is looped over or allocated, and
every byte of the data must belong to one tensor, as llama.cpp itself demands.
"""

from __future__ import annotations

from typing import NamedTuple

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_gguf.cursor import Cursor
from hardpoint_gguf.refuse import refuse, show
from hardpoint_gguf.types import BY_NUMBER, REMOVED, Type
from hardpoint_gguf.values import Values

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_TENSORS = 1 << 18
MAX_NAME = (1 << 16) - 1
MAX_RANK = 64  # PyTorch's; ggml itself has four
ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 20
_MAX_SIZE = (1 << 63) - 1
_TENSOR = 8 + 4 + 4 + 8  # bytes of the shortest entry: no name, no size


class Entry(NamedTuple):
    """One tensor.

    :param shape: in PyTorch's order, outermost first; files have it the other way round.
    :param begin: byte of the file.
    """

    name: str
    type: Type
    shape: tuple[int, ...]
    begin: int
    nbytes: int


class Header(NamedTuple):
    """A header that holds together with its file; ``tensors`` in the order of their data."""

    metadata: dict[str, str]
    tensors: list[Entry]


def is_ours(start: bytes) -> bool:
    """Whether a file that begins with these eight bytes is one, of whatever version."""
    version = int.from_bytes(start[4:8], "little")
    known = (1, *VERSIONS)
    return start[:4] == MAGIC and (version in known or _turned(version) in known)


def read_header(source: Source) -> Header:
    """Parse the header.

    :raises WeightsError: it breaks a rule of the format, or does not describe exactly the file.
    """
    cursor = Cursor(source)
    if source.size < 4 or cursor.take(4, "its first word") != MAGIC:
        raise refuse(source.name, "this is no GGUF file", "it does not begin with 'GGUF'")
    _check_version(cursor)
    tensors, pairs = cursor.u64("the number of tensors"), cursor.u64("the number of pairs")
    if tensors > MAX_TENSORS or tensors * _TENSOR > cursor.left:
        raise cursor.broken(
            f"it states {tensors} tensors; {cursor.left} bytes follow, and at most {MAX_TENSORS}"
            " tensors are allowed"
        )
    values = Values(cursor)
    metadata = values.read(pairs)
    alignment = ALIGNMENT if values.alignment is None else values.alignment
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.broken(
            f"its general.alignment is {alignment}, no power of two up to {MAX_ALIGNMENT}"
        )
    entries: dict[str, Entry] = {}
    for _ in range(tensors):
        entry = _entry(cursor)
        if entry.name in entries:
            raise cursor.broken(f"two tensors are called {show(entry.name)}")
        if entry.begin % alignment:
            raise _bad(
                cursor.file,
                entry.name,
                f"its offset {entry.begin} is no multiple of the alignment {alignment}",
            )
        entries[entry.name] = entry
    return Header(metadata, _place(source, cursor, list(entries.values()), alignment))


def _check_version(cursor: Cursor) -> None:
    version = cursor.u32("its version")
    if version in VERSIONS:
        return
    if _turned(version) in VERSIONS:
        raise refuse(
            cursor.file,
            "the file is big-endian",
            "it was made for machines of the other byte order",
            "convert it with gguf_convert_endian.py of llama.cpp",
        )
    raise refuse(
        cursor.file,
        f"this GGUF file is of version {version}",
        f"versions {VERSIONS[0]} and {VERSIONS[1]} are read",
        "make it again with a current llama.cpp, or update hardpoint-gguf",
    )


def _turned(version: int) -> int:
    return int.from_bytes(version.to_bytes(4, "little"), "big")


def _bad(file: str, name: str, cause: str) -> WeightsError:
    return refuse(file, f"tensor {show(name)} is broken", cause)


def _entry(cursor: Cursor) -> Entry:
    """One tensor; its ``begin`` is still counted from where the data begin."""
    name = cursor.text("a tensor's name", MAX_NAME)
    what = f"the entry of tensor {show(name)}"
    rank = cursor.u32(what)
    if rank > MAX_RANK:
        raise _bad(cursor.file, name, f"it has {rank} dimensions; at most {MAX_RANK} may be")
    sizes = [cursor.u64(what) for _ in range(rank)]
    number = cursor.u32(what)
    type_ = BY_NUMBER.get(number)
    if type_ is None:
        known = f"{REMOVED[number]}, taken out of ggml" if number in REMOVED else "unknown here"
        raise refuse(
            cursor.file,
            f"tensor {show(name)} cannot be read",
            f"its type is {number}: {known}",
            "quantize the model again, or update hardpoint-gguf",
        )
    if type_.quantized and (not sizes or sizes[0] % type_.block):
        raise _bad(
            cursor.file,
            name,
            f"its rows of {sizes[0] if sizes else 'one'} values are no multiple of {type_.name}'s"
            f" {type_.block}",
        )
    shape = tuple(reversed(sizes))
    # PyTorch multiplies sizes to strides even where one of them is 0; ours are float32 then.
    product = max(type_.nbytes, 4)
    count = 1
    for size in shape:
        product *= size or 1
        count *= size
    if product > _MAX_SIZE:
        raise _bad(cursor.file, name, f"its shape {show(shape)} is larger than any memory")
    offset = cursor.u64(what)
    return Entry(name, type_, shape, offset, count // type_.block * type_.nbytes)


def _place(source: Source, cursor: Cursor, entries: list[Entry], alignment: int) -> list[Entry]:
    """The entries in the order of their data, of which every byte must be one's, or padding."""
    start = cursor.place + -cursor.place % alignment
    if not entries and cursor.left == 0:
        return []
    if cursor.take(start - cursor.place, "the padding after the header").strip(b"\0"):
        raise cursor.broken("other bytes than zeros pad it")
    at, before = 0, "the header"
    placed = []
    for entry in sorted(entries, key=lambda each: (each.begin, each.nbytes)):
        expected = at + -at % alignment
        if entry.begin != expected:
            relation = "overlaps" if entry.begin < expected else "leaves a hole after"
            raise _bad(
                source.name,
                entry.name,
                f"its offset {entry.begin} {relation} {before}: {expected} would follow it",
            )
        at, before = entry.begin + entry.nbytes, f"tensor {show(entry.name)}"
        placed.append(entry._replace(begin=start + entry.begin))
    end = start + at
    if end > source.size:
        raise refuse(
            source.name,
            "the file is cut short",
            f"its tensors end at byte {end}, and it has {source.size}",
        )
    # Writers differ in whether the last tensor is padded too.
    rest = source.size - end
    if rest not in (0, -end % alignment) or source.read(end, rest).strip(b"\0"):
        raise refuse(
            source.name, "bytes follow the last tensor", f"{rest} after byte {end} belong to nobody"
        )
    return placed
