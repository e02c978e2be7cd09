"""A set of files with an index beside them: JSON that maps each tensor to the file it is in."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Index, Reader, TensorInfo
from hardpoint.storage.refusal import Refusal, show
from hardpoint.storage.source import Source

_MAX_INDEX = 100_000_000
_MAX_TENSORS = 1 << 20
_MAX_SHARDS = 1 << 14
_FIELDS = frozenset({"metadata", "weight_map"})
# Of the tensors of one file: among several, a shard's says nothing about the set.
_CHECKSUM = "hardpoint.sha256"


@dataclass(frozen=True, slots=True)
class Sharding:
    """How a format shards.

    :param suffixes: of its shards, e.g. ``(".safetensors",)``.
    :param parse: bytes of JSON to the value; a ``ValueError`` says in words what is wrong.
    :param open_file: what opens one shard.
    :param reserved: names that no tensor can have.
    """

    refuse: Refusal
    suffixes: tuple[str, ...]
    parse: Callable[[bytes], object]
    open_file: Callable[[Source, torch.device], Reader]
    reserved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A parsed index.

    :param tensors_in: bare name of a file beside the index -> names of its tensors.
    :param shard_of: the same the other way round; shard by shard.
    :param metadata: the index's own; values that are not text are given as their JSON.
    """

    sharding: Sharding
    tensors_in: dict[str, list[str]]
    shard_of: dict[str, str]
    metadata: dict[str, str]

    @classmethod
    def read(cls, source: Source, sharding: Sharding) -> ShardIndex:
        """Parse an index, opening none of the shards.

        :raises WeightsError: unreadable, not strict JSON, or it names files outside its directory.
        """
        path = source.name

        def broken(cause: str) -> WeightsError:
            return sharding.refuse(path, "the index is broken", cause)

        if source.size > _MAX_INDEX:
            raise broken(f"it has more than {_MAX_INDEX} bytes")
        try:
            top = sharding.parse(source.read(0, source.size))
        except ValueError as error:
            raise broken(str(error)) from error
        if not isinstance(top, dict) or not {"weight_map"} <= top.keys() <= _FIELDS:
            has = sorted(top) if isinstance(top, dict) else top
            raise broken(f"it needs 'weight_map', may have 'metadata', and has {show(has)}")
        metadata = top.get("metadata", {})
        if not isinstance(metadata, dict):
            raise broken(f"its metadata is {show(metadata)}, not an object")
        try:
            texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
        except RecursionError as error:
            raise broken("its metadata is nested too deeply") from error
        try:
            tensors_in = _checked_map(top["weight_map"], sharding)
        except ValueError as error:
            raise broken(str(error)) from error
        shard_of = {name: shard for shard, names in tensors_in.items() for name in names}
        return cls(sharding, tensors_in, shard_of, texts)

    def check(self, shard: str, found: Iterable[str], path: str) -> None:
        """Hold a shard's own names against the index.

        :raises WeightsError: one has a tensor that the other does not know.
        """
        mapped, present = set(self.tensors_in[shard]), set(found)
        refuse = self.sharding.refuse
        remedy = "get index and shards again, all from one place: they do not belong together"
        if mapped - present:
            what = f"tensor {show(min(mapped - present))} is not in {shard}"
            raise refuse(path, what, "the index maps it there", remedy)
        if present - mapped:
            what = f"tensor {show(min(present - mapped))} of {shard} is not in the index"
            raise refuse(path, what, "the index does not map it to that shard", remedy)


def _checked_map(weight_map: object, sharding: Sharding) -> dict[str, list[str]]:
    if not isinstance(weight_map, dict):
        raise ValueError(  # noqa: TRY004 - of the file, not of our caller
            f"its weight_map is {show(weight_map)}, not an object"
        )
    if len(weight_map) > _MAX_TENSORS:
        raise ValueError(f"it names {len(weight_map)} tensors; at most {_MAX_TENSORS} may be")
    by_shard: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if name in sharding.reserved:
            raise ValueError(f"it maps {name}, which is no tensor")
        known = isinstance(shard, str) and shard in by_shard
        if not (known or (isinstance(shard, str) and _is_bare(shard, sharding.suffixes))):
            kinds = " or ".join(f"*{suffix}" for suffix in sharding.suffixes)
            raise ValueError(
                f"it maps tensor {show(name)} to {show(shard)}, "
                f"which is no {kinds} file right beside the index",
            )
        by_shard.setdefault(shard, []).append(name)
    if len(by_shard) > _MAX_SHARDS:
        raise ValueError(f"it names {len(by_shard)} files; at most {_MAX_SHARDS} may be")
    return by_shard


def _is_bare(shard: str, suffixes: tuple[str, ...]) -> bool:
    """No directory, drive or control character in it: it cannot leave the index's directory."""
    return (
        shard.endswith(suffixes)
        and shard not in suffixes
        and shard.isprintable()
        and not any(mark in shard for mark in "/\\:")
    )


class ShardedReader(Reader):
    """The files that an index names, each opened when first needed. Usable from several threads.

    :raises WeightsError: the index is refused; or, when a shard is opened: it is missing, refused,
        or does not hold exactly the tensors that the index maps to it.
    """

    def __init__(self, source: Source, device: torch.device, sharding: Sharding) -> None:
        self._name = source.name
        self._source = source
        self._device = device
        self._sharding = sharding
        self._index = ShardIndex.read(source, sharding)
        self._shards: dict[str, Reader] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def shards(self) -> tuple[str, ...]:
        """Bare names of the files."""
        return tuple(self._index.tensors_in)

    def _shard(self, shard: str) -> Reader:
        known = self._shards.get(shard)  # empty once it is closed
        if known is not None:
            return known
        with self._lock:
            if self._closed:
                raise self._sharding.refuse(
                    self._name, "the reader is closed", "it was closed", "open the index again"
                )
            if shard not in self._shards:
                reader = self._sharding.open_file(self._source.beside(shard), self._device)
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
            if len(self._index.tensors_in) > 1:
                sources[shard].pop(_CHECKSUM, None)
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

    def items(self) -> ItemsView[str, TensorInfo]:
        """Names, as iteration gives them, and what they name; opens all shards."""
        found: dict[str, TensorInfo] = {}
        for shard, names in self._index.tensors_in.items():
            infos = dict(self._shard(shard).items())
            for name in names:
                found[name] = infos[name]
        return found.items()

    def tensor(self, name: str) -> torch.Tensor:
        """As :meth:`TableReader.tensor`, from the shard that holds it."""
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`TableReader.slice`, from the shard that holds it."""
        shard = self._index.shard_of.get(name)
        if shard is None:
            raise self._sharding.refuse.no_such_tensor(self._name, name, self._index.shard_of)
        return self._shard(shard).slice(name, index)

    def close(self) -> None:
        """Let go of all shards."""
        with self._lock:
            self._closed = True
            for reader in self._shards.values():
                reader.close()
            self._shards.clear()
