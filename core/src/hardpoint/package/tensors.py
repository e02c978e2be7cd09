"""Tensors in a package: each storage written once, and mapped back without a copy.

A *reference* says where a tensor lies: ``{"entry", "dtype", "shape", "strides", "offset"}``,
strides and offset in elements. It is plain JSON, so that a manifest can hold it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hardpoint.errors import PackageError
from hardpoint.package.archive import Archive
from hardpoint.package.refusal import MalformedError, refusing

if TYPE_CHECKING:
    from hardpoint.package.writer import ArchiveWriter

TENSORS = "data/hardpoint/tensors/tensor_"
DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.bool, torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        *(torch.float8_e8m0fnu, torch.complex32, torch.complex64, torch.complex128),
    )
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_DIMENSIONS = 64
# An expanded tensor (stride 0) has more elements than its entry: bound what a copy of it may cost.
MAX_EXPANDED_BYTES = 1 << 30
Ref = dict[str, Any]


class _Range(NamedTuple):
    """Elements ``[start, stop)`` of a storage, written as one entry."""

    start: int
    stop: int
    entry: str


class TensorStore:
    """Writes tensors into an archive; what lies in the same memory is written once.

    Only the part of a storage that is used is written: a slice of a large file's mapping does not
    drag the file along. Entries are shared by (storage, dtype), because PyTorch's own reader
    takes an entry for an array of one dtype.
    """

    def __init__(self, writer: ArchiveWriter) -> None:
        self._writer = writer
        self._ranges: dict[tuple[str, int, torch.dtype], list[_Range]] = {}
        # Held so that no address is used again for another tensor before the archive is done.
        self._alive: list[torch.UntypedStorage] = []
        self._counts: dict[str, int] = {}

    def put(self, tensor: torch.Tensor) -> Ref:
        """Write ``tensor``, unless its memory is written already; where it is now.

        :raises PackageError: a tensor that has no plain bytes (sparse, quantized, fake, subclass).
        """
        return self.put_all({"": tensor})[""]

    def put_all(
        self, tensors: Mapping[str, torch.Tensor], *, prefix: str = TENSORS, share: bool = True
    ) -> dict[str, Ref]:
        """Write several tensors; those that overlap in memory share an entry.

        :param prefix: entries are named by it and a number.
        :param share: whether entries with another prefix may be used.
        :raises PackageError: as :meth:`put`.
        """
        plain = {name: self._plain(name, tensor) for name, tensor in tensors.items()}
        groups: dict[tuple[str, int, torch.dtype], list[torch.Tensor]] = {}
        for tensor in plain.values():
            groups.setdefault(_key(tensor), []).append(tensor)
        for key, members in groups.items():
            known = self._usable(key, prefix, share)
            missing = [t for t in members if _find(known, _extent(t)) is None]
            for start, stop in _union(_extent(t) for t in missing):
                self._write(key, missing[0], start, stop, prefix)
        refs = {}
        for name, tensor in plain.items():
            found = _find(self._usable(_key(tensor), prefix, share), _extent(tensor))
            assert found is not None, "every range was written above"
            refs[name] = _ref(tensor, found)
        return refs

    def _usable(self, key: tuple[str, int, torch.dtype], prefix: str, share: bool) -> list[_Range]:
        ranges = self._ranges.get(key, [])
        return [r for r in ranges if share or r.entry.startswith(prefix)]

    def _write(
        self,
        key: tuple[str, int, torch.dtype],
        member: torch.Tensor,
        start: int,
        stop: int,
        prefix: str,
    ) -> None:
        flat = member.as_strided((stop - start,), (1,), start).cpu()
        number = self._counts.get(prefix, 0)
        self._counts[prefix] = number + 1
        entry = f"{prefix}{number}"
        self._writer.add(entry, bytes_of(flat))
        self._ranges.setdefault(key, []).append(_Range(start, stop, entry))

    def _plain(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` without gradient, and with its values really in memory."""
        plain = tensor.detach()
        kind = type(plain)
        if (
            kind is not torch.Tensor
            or plain.is_meta
            or plain.layout is not torch.strided
            or plain.dtype not in _NAMES
        ):
            raise PackageError(
                f"{self._writer.path} could not be written",
                cause=f"the tensor {name!r} ({kind.__name__}, {plain.dtype}, {plain.layout}) has "
                "no plain bytes to write",
                remedy="turn it into an ordinary dense tensor before capturing the model",
            )
        plain = plain.resolve_conj().resolve_neg()
        self._alive.append(plain.untyped_storage())
        return plain


class MappedTensors:
    """Tensors on an archive's mapping; those of one entry share one storage."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._bases: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def tensor(self, ref: object) -> torch.Tensor:
        """The tensor that ``ref`` describes; nothing is read or copied.

        Writing into it changes this process's memory only, never the file.

        :raises PackageError: a reference that is malformed or leaves its entry.
        """
        with refusing(self._archive.path):
            entry, dtype, shape, strides, offset = _checked(self._archive, ref)
        base = self._bases.get((entry, dtype))
        if base is None:
            data = self._archive.private(entry)
            count = len(data) // dtype.itemsize
            if count:
                base = torch.frombuffer(data, dtype=dtype, count=count)
            else:
                base = torch.empty(0, dtype=dtype)
            self._bases[entry, dtype] = base
        return base.as_strided(shape, strides, offset)


def tensor_from_ref(archive: Archive, ref: object) -> torch.Tensor:
    """The tensor that ``ref`` describes, mapped: see :meth:`MappedTensors.tensor`.

    :raises PackageError: a reference that is malformed or leaves its entry.
    """
    return MappedTensors(archive).tensor(ref)


def _checked(
    archive: Archive, ref: object
) -> tuple[str, torch.dtype, tuple[int, ...], tuple[int, ...], int]:
    """The parts of a reference; any of them may be hostile until here."""
    if not isinstance(ref, dict) or ref.keys() != {"entry", "dtype", "shape", "strides", "offset"}:
        raise MalformedError("a tensor's reference does not have the five parts it must have")
    name, dtype_name, shape, strides, offset = (
        ref[part] for part in ("entry", "dtype", "shape", "strides", "offset")
    )
    entry = archive.entries.get(name) if isinstance(name, str) else None
    if entry is None:
        raise MalformedError(f"a tensor refers to entry {name!r}, which does not exist")
    dtype = DTYPES.get(dtype_name) if isinstance(dtype_name, str) else None
    if dtype is None:
        raise MalformedError(f"the tensor in {name!r} has the unknown dtype {dtype_name!r}")
    if not (_sizes(shape) and _sizes(strides) and _sizes([offset]) and len(shape) == len(strides)):
        raise MalformedError(
            f"the tensor in {name!r} has an impossible layout: shape {shape!r:.80}, strides "
            f"{strides!r:.80}, offset {offset!r:.40}"
        )
    count = 1
    for size in shape:
        count *= size
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    needed = (last + 1) * dtype.itemsize if count else 0
    if needed > entry.size:
        raise MalformedError(
            f"the tensor in {name!r} needs {needed} bytes of an entry that has {entry.size}"
        )
    if count * dtype.itemsize > max(entry.size, MAX_EXPANDED_BYTES):
        raise MalformedError(
            f"the tensor in {name!r} claims {count} elements of {entry.size} bytes"
        )
    return name, dtype, tuple(shape), tuple(strides), offset if count else 0


def _sizes(values: object) -> bool:
    """Whether it is a list of plain, not negative 63-bit integers."""
    return (
        isinstance(values, list)
        and len(values) <= MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value < 1 << 62 for value in values)
    )


def _key(tensor: torch.Tensor) -> tuple[str, int, torch.dtype]:
    return str(tensor.device), tensor.untyped_storage().data_ptr(), tensor.dtype


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """First element of the storage that ``tensor`` uses, and one past its last."""
    start = int(tensor.storage_offset())
    if not tensor.numel():
        return start, start
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return start, start + sum((int(size) - 1) * int(step) for size, step in sizes) + 1


def _union(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The extents, those that overlap (or are equal) merged."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(extents):
        if merged and (start < merged[-1][1] or (start, stop) == merged[-1]):
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _find(ranges: Iterable[_Range], extent: tuple[int, int]) -> _Range | None:
    start, stop = extent
    return next((r for r in ranges if r.start <= start and stop <= r.stop), None)


def _ref(tensor: torch.Tensor, written: _Range) -> Ref:
    return {
        "entry": written.entry,
        "dtype": _NAMES[tensor.dtype],
        "shape": list(tensor.shape),
        "strides": list(tensor.stride()),
        "offset": tensor.storage_offset() - written.start,
    }


def bytes_of(flat: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, not copied."""
    if not flat.nbytes:
        return memoryview(b"")
    # numpy knows neither bfloat16 nor float8, and is no dependency of ours.
    memory = (ctypes.c_ubyte * flat.nbytes).from_address(flat.data_ptr())
    return memoryview(memory).cast("B")
