"""Saving with ``torch.distributed.checkpoint`` through a serializer; see :mod:`.dcp`."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem, WriteItemType
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from hardpoint import api_weights
from hardpoint.bridges.dcp_index import Index, Piece, Sharded
from hardpoint.bridges.dcp_values import encode
from hardpoint.errors import ConfigError, WeightsError
from hardpoint.registry.registry import Registry
from hardpoint.storage.boxes import Box
from hardpoint.storage.refusal import show

_SHARD = re.compile(r"shard-\d{5}-[0-9a-f]{16}\..+")


@dataclass(frozen=True, slots=True)
class _Written:
    """Where a chunk of a tensor went."""

    file: str
    key: str


@dataclass(frozen=True, slots=True)
class _Value:
    """What is no tensor, as :func:`encode` gives it; it goes into the index."""

    encoded: Any


class Writer(StorageWriter):
    """``dcp.save(state, storage_writer=Writer(path))``; one save at a time to one directory.

    What is no tensor must be made of None, bool, int, float, str, list, tuple and dict.

    :param path: of the directory; another save in it is replaced when this one is whole.
    :param format: the serializer that writes the files.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str = "safetensors",  # noqa: A002 - the field's word
        *,
        registry: Registry | None = None,
    ) -> None:
        self.path = Path(path)
        self.format = format
        self._registry = registry

    @property
    def checkpoint_id(self) -> str | os.PathLike[str]:
        """The directory."""
        return self.path

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin another save, to the directory ``checkpoint_id`` if it is given."""
        if checkpoint_id:
            self.path = Path(checkpoint_id)

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """:raises WeightsError: ranks that save without collectives: nobody writes the index."""
        want_collectives(kwargs)

    def storage_meta(self) -> StorageMeta:
        """What planners are told of this storage."""
        return StorageMeta(checkpoint_id=self.path)

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tell each rank its number."""
        return [replace(plan, storage_data=rank) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's tensors to a new file, synced; the index does not know it yet.

        :raises WeightsError: a value that is not plain, or as the serializer.
        """
        results = []
        tensors: dict[str, WriteItem] = {}
        # A name of its own for each save: a save that dies leaves the one before it whole.
        file = f"shard-{plan.storage_data:05}-{secrets.token_hex(8)}.{self.format}"
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                results.append(WriteResult(item.index, 0, _Value(_encoded(item, planner))))
                continue
            key = _key(item, tensors)
            tensors[key] = item
            results.append(WriteResult(item.index, 0, _Written(file, key)))
        if tensors:
            self.path.mkdir(parents=True, exist_ok=True)
            lazily = _Resolved(tensors, planner)
            api_weights.save_weights(
                lazily, self.path / file, format=self.format, registry=self._registry
            )
        return done(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the index, then remove the files of the save before.

        :raises WeightsError: a file is missing, or the index cannot be written.
        """
        index = _index_of(metadata, results, self.format)
        missing = [file for file in sorted(index.files) if not (self.path / file).exists()]
        if missing:
            raise WeightsError(
                f"{self.path}: the save is not whole, and the one before it was kept",
                cause=f"{missing[0]} is gone: another save to the same directory, or ranks that do"
                " not share it",
                remedy="save to one directory at a time, on a file system that all ranks share",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            index.write(self.path)
        except OSError as error:
            raise WeightsError(
                f"{self.path}: the index cannot be written, and the save before it was kept",
                cause=str(error),
                remedy="check the folder, its permissions and the space left on the disk",
            ) from error
        for old in self.path.iterdir():
            if _SHARD.fullmatch(old.name) and old.name not in index.files:
                # The save is whole; what cannot be removed goes with the next one.
                with contextlib.suppress(OSError):
                    shutil.rmtree(old) if old.is_dir() else old.unlink()

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it names a directory of this machine."""
        return "://" not in os.fspath(checkpoint_id)


class _Resolved(Mapping[str, torch.Tensor]):
    """The plan's tensors, each asked of the planner when it is written."""

    def __init__(self, items: Mapping[str, WriteItem], planner: SavePlanner) -> None:
        self._items = items
        self._planner = planner

    def __getitem__(self, key: str) -> torch.Tensor:
        tensor = self._planner.resolve_data(self._items[key])
        assert isinstance(tensor, torch.Tensor)
        return tensor.detach()

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def want_collectives(options: Mapping[str, Any]) -> None:
    """:raises ConfigError: torch is to save or load without them, with metadata for each rank."""
    if not options.get("use_collectives", True):
        raise ConfigError(
            "hardpoint's storage needs use_collectives=True",
            cause="the ranks' files become one checkpoint by an index that one rank writes",
            remedy="leave use_collectives out of dcp.save() and dcp.load()",
        )


def done(value: Any) -> Future[Any]:
    """A future that has its value."""
    future: Future[Any] = Future()
    future.set_result(value)
    return future


def _key(item: WriteItem, taken: Mapping[str, WriteItem]) -> str:
    """What the chunk is called in its file: as the tensor, where it is the first of it there."""
    key = item.index.fqn
    if key in taken:
        key = f"{key}@{','.join(map(str, item.index.offset or ()))}"
    while key in taken:
        key += "'"
    return key


def _encoded(item: WriteItem, planner: SavePlanner) -> Any:
    name = item.index.fqn
    look_up = getattr(planner, "lookup_object", None)
    if look_up is None:
        raise WeightsError(
            f"{show(name)} cannot be saved",
            cause=f"it is no tensor, and {type(planner).__name__} gives such values only pickled",
            remedy="use a planner that derives from DefaultSavePlanner, or save tensors alone",
        )
    try:
        return encode(look_up(item.index))
    except ValueError as error:
        raise WeightsError(
            f"{show(name)} cannot be saved",
            cause=f"{error}; values beside tensors are saved as JSON, never pickled",
            remedy="make it of None, bool, int, float, str, list, tuple and dict; or a tensor",
        ) from error


def _index_of(metadata: Metadata, results: list[list[WriteResult]], serializer: str) -> Index:
    written = {
        (result.index.fqn, result.index.offset): result.storage_data
        for rank in results
        for result in rank
    }
    tensors, values = {}, {}
    for name, entry in metadata.state_dict_metadata.items():
        if not isinstance(entry, TensorStorageMetadata):
            values[name] = written[name, None].encoded
            continue
        pieces = []
        for chunk in entry.chunks:
            where = written.get((name, chunk.offsets))
            if where is not None:
                box = Box(tuple(chunk.offsets), tuple(chunk.sizes))
                pieces.append(Piece(box, where.file, where.key))
        dtype = str(entry.properties.dtype).removeprefix("torch.")
        tensors[name] = Sharded(dtype, tuple(entry.size), tuple(pieces))
    paths = {
        name: tuple(path)
        for name, path in (metadata.planner_data or {}).items()
        if tuple(path) != (name,)
    }
    for name, path in paths.items():
        if not all(type(part) in (str, int) for part in path):
            raise WeightsError(
                f"{show(name)} cannot be saved",
                cause=f"a key on the way to it is neither text nor a number: {show(path)}",
                remedy="use str or int as keys",
            )
    return Index(serializer=serializer, tensors=tensors, values=values, paths=paths)
