"""Readers: of one file, and of a set of shards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import torch

from hardpoint import Index, Reader, TensorInfo
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint_safetensors.header import LENGTH_BYTES, header_length, parse_header
from hardpoint_safetensors.index import ShardIndex
from hardpoint_safetensors.refuse import refuse


def open_file(source: Source, device: torch.device) -> TableReader:
    """Parse the header of one file; nothing else of it is read.

    :raises WeightsError: the file cannot be read, or its header is refused.
    """
    name, size = source.name, source.size
    length = header_length(source.read(0, min(LENGTH_BYTES, size)), size, name)
    data_at = LENGTH_BYTES + length
    header = parse_header(source.read(LENGTH_BYTES, length), size - data_at, name)
    table = {
        key: TensorInfo(key, dtype.torch_name, shape, end - begin, name, data_at + begin)
        for key, (dtype, shape, begin, end) in header.tensors.items()
    }
    return TableReader(source, table, refuse=refuse, metadata=header.metadata, device=device)


class ShardedReader(Reader):
    """The files that an index names, each opened when first needed. Usable from several threads.

    :raises WeightsError: the index is refused; or, when a shard is opened: it is missing, refused,
        or does not hold exactly the tensors that the index maps to it.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self._name = source.name
        self._source = source
        self._device = device
        self._index = ShardIndex.read(source)
        self._shards: dict[str, TableReader] = {}
        self._lock = threading.Lock()
        self._closed = False

    def _shard(self, shard: str) -> TableReader:
        with self._lock:
            if self._closed:
                raise refuse(
                    self._name, "the reader is closed", "it was closed", "open the index again"
                )
            if shard not in self._shards:
                reader = open_file(self._source.beside(shard), self._device)
                self._index.check(shard, reader, self._name)
                self._shards[shard] = reader
            return self._shards[shard]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata of the index and of all shards (which opens them).

        Where two files give one key different values, each value stands under ``"file:key"``.
        """
        own = self._name.rpartition("/")[2]
        sources = {own: self._index.metadata}
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

    def source(self, name: str) -> Source | None:
        """The shard that holds the tensor."""
        return self._shard(self._index.shard_of[name]).source(name)

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
        """As :meth:`TableReader.tensor`, from the shard that holds it."""
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`TableReader.slice`, from the shard that holds it."""
        shard = self._index.shard_of.get(name)
        if shard is None:
            raise refuse.no_such_tensor(self._name, name, self._index.shard_of)
        return self._shard(shard).slice(name, index)

    def close(self) -> None:
        """Let go of all shards."""
        with self._lock:
            self._closed = True
            for reader in self._shards.values():
                reader.close()
            self._shards.clear()
