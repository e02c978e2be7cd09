"""Readers: of one file, and of a set of shards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from hardpoint import Reader, TensorInfo
from hardpoint_safetensors.index import ShardIndex
from hardpoint_safetensors.mapped import Index, MappedFile
from hardpoint_safetensors.refuse import no_such_tensor, refuse, show


class FileReader(Reader):
    """One file. Usable from several threads.

    :raises WeightsError: the file cannot be read or is refused.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device
        self._file: MappedFile | None = MappedFile(path)

    def _open_file(self) -> MappedFile:
        file = self._file
        if file is None:
            raise refuse(self._path, "the reader is closed", "it was closed", "open the file again")
        return file

    @property
    def metadata(self) -> Mapping[str, str]:
        """The ``__metadata__`` of the header."""
        return MappingProxyType(self._open_file().header.metadata)

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the data, so that reading them all reads the file forwards."""
        return iter(self._open_file().header.tensors)

    def __len__(self) -> int:
        return len(self._open_file().header.tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._open_file().header.tensors

    def __getitem__(self, name: str) -> TensorInfo:
        """:raises KeyError: no such tensor (this is a mapping; :meth:`tensor` explains more)."""
        dtype, shape, begin, end = self._open_file().header.tensors[name]
        return TensorInfo(
            name=name, dtype=dtype.torch_name, shape=shape, nbytes=end - begin, file=str(self._path)
        )

    def tensor(self, name: str) -> torch.Tensor:
        """A view of the mapped file: copied only if misaligned in it or wanted on another device.

        Asking twice gives the same memory. ``torch.save`` of a view would write the whole file:
        clone it first.

        :raises WeightsError: no such tensor, or a BOOL with bytes other than 0 and 1.
        """
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]`` for ints and slices; only the bytes asked for are ever read.

        :raises WeightsError: no such tensor, or an index outside it or of another type.
        """
        file = self._open_file()
        entry = file.header.tensors.get(name)
        if entry is None:
            raise no_such_tensor(self._path, name, file.header.tensors)
        try:
            found = file.view(name, _checked(index, len(entry.shape)))
        except (IndexError, ValueError) as error:
            raise refuse(
                self._path,
                f"tensor {show(name)} of shape {entry.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        return found if self._device.type == "cpu" else found.to(self._device)

    def close(self) -> None:
        """Let go of the file; the map itself goes with the last tensor of it."""
        self._file = None


class ShardedReader(Reader):
    """The files that an index names, each opened when first needed. Usable from several threads.

    :raises WeightsError: the index is refused; or, when a shard is opened: it is missing, refused,
        or does not hold exactly the tensors that the index maps to it.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path = path
        self._device = device
        self._index = ShardIndex.read(path)
        self._shards: dict[str, FileReader] = {}
        self._lock = threading.Lock()
        self._closed = False

    def _shard(self, shard: str) -> FileReader:
        with self._lock:
            if self._closed:
                raise refuse(
                    self._path, "the reader is closed", "it was closed", "open the index again"
                )
            if shard not in self._shards:
                reader = FileReader(self._path.parent / shard, self._device)
                self._index.check(shard, reader, self._path)
                self._shards[shard] = reader
            return self._shards[shard]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the index and of all shards (which opens them).

        Where two files give one key different values, each value stands under ``"file:key"``.
        """
        sources = {self._path.name: self._index.metadata}
        for shard in self._index.tensors_in:
            sources[shard] = dict(self._shard(shard).metadata)
        values: dict[str, set[str]] = {}
        for metadata in sources.values():
            for key, value in metadata.items():
                values.setdefault(key, set()).add(value)
        return {
            key if len(values[key]) == 1 else f"{source}:{key}": value
            for source, metadata in sources.items()
            for key, value in metadata.items()
        }

    def __iter__(self) -> Iterator[str]:
        """Names, shard by shard, in the order of the index."""
        return iter(self._index.shard_of)

    def __len__(self) -> int:
        return len(self._index.shard_of)

    def __contains__(self, name: object) -> bool:
        return name in self._index.shard_of

    def __getitem__(self, name: str) -> TensorInfo:
        """:raises KeyError: no such tensor (this is a mapping; :meth:`tensor` explains more)."""
        return self._shard(self._index.shard_of[name])[name]

    def tensor(self, name: str) -> torch.Tensor:
        """As :meth:`FileReader.tensor`, from the shard that holds it."""
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`FileReader.slice`, from the shard that holds it."""
        shard = self._index.shard_of.get(name)
        if shard is None:
            raise no_such_tensor(self._path, name, self._index.shard_of)
        return self._shard(shard).slice(name, index)

    def close(self) -> None:
        """Let go of all shards."""
        with self._lock:
            self._closed = True
            for reader in self._shards.values():
                reader.close()
            self._shards.clear()


def _checked(index: Index, rank: int) -> tuple[int | slice, ...]:
    """The index as a tuple of ints and slices, no more of them than dimensions.

    :raises IndexError, ValueError: it is something else; torch would take it for more.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if len(parts) > rank:
        raise IndexError(f"{len(parts)} indices for {rank} dimensions")
    for part in parts:
        numbers = (part.start, part.stop, part.step) if isinstance(part, slice) else (part,)
        for number in numbers:
            if type(number) is not int and not (isinstance(part, slice) and number is None):
                raise ValueError(f"{show(number)} is no whole number")
    return parts
