"""The reader of one file: plain tensors by the table, the others as views of their storages."""

from __future__ import annotations

import threading
from collections import Counter

import torch

from hardpoint import Index, TensorInfo
from hardpoint.storage.gather import gather, piece
from hardpoint.storage.slices import checked
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint.storage.typed import check_bools
from hardpoint_checkpoint.checkpoint import Checkpoint
from hardpoint_checkpoint.refuse import refuse, show
from hardpoint_checkpoint.standins import TensorRef

# Elements may stand for many (expanded tensors), and a storage may have many views: copies of them
# all, which loading into private memory makes, take at most so many times the file.
_MOST_COPIES = 8
_SMALL = 64 << 20


class CheckpointReader(TableReader):
    """All tensors of one checkpoint. Those that share memory there share it here.

    A tensor that does not lie row by row is a view of its mapped storage, with the same strides.
    One that the file misaligns (in files from before PyTorch 1.6 most are) is a copy, and so is one
    to be conjugated or negated.
    """

    def __init__(self, source: Source, checkpoint: Checkpoint, device: torch.device) -> None:
        tensors, places = checkpoint.content.tensors, checkpoint.places
        users = Counter(ref.storage.key for ref in tensors.values())
        self._places = places
        self._odd: dict[str, TensorRef] = {}
        table = {}
        for name, ref in tensors.items():
            at = places[ref.storage.key] + ref.first
            # A misaligned tensor is copied: then all that share its memory must share the copy.
            direct = ref.plain and (at % ref.itemsize == 0 or users[ref.storage.key] == 1)
            if not direct:
                self._odd[name] = ref
            nbytes = min(ref.numel * ref.itemsize, ref.span)
            offset = at if direct else None
            table[name] = TensorInfo(name, ref.dtype, ref.shape, nbytes, source.name, offset)
        _check_copies(source, self._odd)
        self._shared = {key for key, count in users.items() if count > 1}
        self._copies: dict[str, torch.UntypedStorage] = {}
        self._copying = threading.Lock()
        super().__init__(
            source, table, refuse=refuse, metadata=checkpoint.content.metadata, device=device
        )

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`TableReader.slice`."""
        ref = self._odd.get(name)
        if ref is None:
            return super().slice(name, index)
        source = self._opened()
        try:
            parts = checked(index, len(ref.shape))
            # The same index into a tensor without memory tells which elements are asked for.
            asked = torch.empty_strided(ref.shape, ref.stride, device="meta", dtype=torch.uint8)[
                parts
            ]
        except (IndexError, ValueError) as error:
            raise refuse(
                source.name,
                f"tensor {show(name)} of shape {ref.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        found = self._view(source, ref, asked, whole=not parts)
        check_bools(found, self._table[name])
        # PyTorch conjugates and negates lazily; here it is done, since others look at the bytes.
        if ref.conj:
            found = found.conj().resolve_conj()
        if ref.neg:
            found = torch.neg(found)
        return found if self._device.type == "cpu" else found.to(self._device)

    def _view(
        self, source: Source, ref: TensorRef, asked: torch.Tensor, *, whole: bool
    ) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, ref.dtype)
        size, stride = tuple(asked.shape), asked.stride()
        if not asked.numel():
            return torch.empty_strided(size, stride, dtype=dtype)
        skipped = int(asked.storage_offset()) * ref.itemsize
        begin = self._places[ref.storage.key] + ref.first + skipped
        mapped = self._map(source)
        storage: torch.UntypedStorage
        if mapped.possible and begin % ref.itemsize == 0:
            everything = TensorInfo("", "uint8", (source.size,), source.size, source.name, 0)
            storage, at = mapped.tensor(everything).untyped_storage(), begin
        elif whole and ref.storage.key in self._shared:
            storage, at = self._copy(source, ref), ref.first
        else:
            last = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
            storage, at = _read(source, begin, (last + 1) * ref.itemsize), 0
        empty = torch.empty(0, dtype=dtype)
        return empty.set_(storage, at // ref.itemsize, size, stride)

    def _copy(self, source: Source, ref: TensorRef) -> torch.UntypedStorage:
        """A whole storage, read once, for all tensors that share it."""
        with self._copying:
            key = ref.storage.key
            if key not in self._copies:
                self._copies[key] = _read(source, self._places[key], ref.storage.total)
            return self._copies[key]

    def close(self) -> None:
        """As :meth:`TableReader.close`."""
        super().close()
        self._copies.clear()


def _read(source: Source, begin: int, nbytes: int) -> torch.UntypedStorage:
    buffer = torch.empty(nbytes, dtype=torch.uint8)
    gather([piece(source, begin, buffer)])
    return buffer.untyped_storage()


def _check_copies(source: Source, odd: dict[str, TensorRef]) -> None:
    total = sum(ref.numel * ref.itemsize for ref in odd.values())
    most = _MOST_COPIES * source.size + _SMALL
    if total > most:
        raise refuse(
            source.name,
            "the checkpoint is broken",
            f"its views would take {total} bytes if they were copied: more than {_MOST_COPIES}"
            f" times the file's {source.size}",
        )
