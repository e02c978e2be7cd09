"""Loading with ``torch.distributed.checkpoint`` through a serializer; see :mod:`.dcp`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from hardpoint import api_weights
from hardpoint.bridges.dcp_index import NAME, Index, Piece, Sharded
from hardpoint.bridges.dcp_values import decode
from hardpoint.bridges.dcp_write import done, want_collectives
from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Reader as FileReader, TensorInfo
from hardpoint.registry.registry import Registry
from hardpoint.storage import gather
from hardpoint.storage.boxes import Box
from hardpoint.storage.refusal import DAMAGED, show
from hardpoint.storage.slices import block_of, is_run
from hardpoint.storage.typed import check_bools, fits


class Reader(StorageReader):
    """``dcp.load(state, storage_reader=Reader(path))``, into any number of ranks.

    :param path: a directory that :class:`Writer` wrote; or any weights that hardpoint opens (a
        file, an index, a directory of ``dcp.save``), of which the tensors can be loaded.
    :param format: the serializer that reads the latter; by default it is told by content.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        format: str | None = None,  # noqa: A002
        *,
        registry: Registry | None = None,
    ) -> None:
        self.path = Path(path)
        self._format = format
        self._registry = registry
        self._index: Index | None = None

    @property
    def checkpoint_id(self) -> str | os.PathLike[str]:
        """What is read."""
        return self.path

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin another load, of ``checkpoint_id`` if it is given."""
        self._index = None
        if checkpoint_id:
            self.path = Path(checkpoint_id)

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """What can be loaded.

        :raises WeightsError: nothing, or what is there is broken.
        """
        want_collectives(kwargs)
        if (self.path / NAME).exists():
            self._index = Index.read(self.path)
        else:
            with self._open(None) as reader:
                self._index = _of_file(reader)
        return _metadata_of(self._index, self.path)

    def set_up_storage_reader(
        self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any
    ) -> None:
        """:raises WeightsError: ranks that load without collectives."""
        want_collectives(kwargs)

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Nothing to add."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Nothing to add."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Read the slices that the plan asks for, file by file.

        :raises WeightsError: a file is missing or broken, or does not hold what the index says.
        """
        assert self._index is not None, "read_metadata comes first"
        pieces = {
            (name, piece.box.offsets): piece
            for name, each in self._index.tensors.items()
            for piece in each.pieces
        }
        by_file: dict[str, list[_Wanted]] = {}
        for item in plan.items:
            name = item.storage_index.fqn
            if item.type == LoadItemType.BYTE_IO:
                data = io.BytesIO()
                # The planner wants what torch.save writes; the value is ours, and plain.
                torch.save(decode(self._index.values[name]), data)
                data.seek(0)
                planner.load_bytes(item, data)
                continue
            sharded = self._index.tensors[name]
            piece = pieces[name, tuple(item.storage_index.offset or ())]
            by_file.setdefault(piece.file, []).append((item, sharded, piece))
        for file in sorted(by_file):
            with self._open(file) as reader:
                _read_file(reader, by_file[file], planner)
        return done(None)

    def _open(self, file: str | None) -> FileReader:
        if not file:
            return api_weights.open_weights(self.path, format=self._format, registry=self._registry)
        format = self._index.serializer if self._index else None  # noqa: A001
        return api_weights.open_weights(self.path / file, format=format, registry=self._registry)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it names a file or directory of this machine."""
        return "://" not in os.fspath(checkpoint_id)


_Wanted = tuple[ReadItem, Sharded, Piece]


def _read_file(reader: FileReader, wanted: list[_Wanted], planner: LoadPlanner) -> None:
    """Fill what is wanted of one file: whole runs straight into place, all else by slices."""
    runs: list[gather.Piece] = []
    filled: list[tuple[ReadItem, torch.Tensor, TensorInfo]] = []
    for item, sharded, piece in wanted:
        info = _info(reader, sharded, piece)
        index = tuple(
            slice(begin, begin + size)
            for begin, size in zip(item.storage_offsets, item.lengths, strict=True)
        )
        target = planner.resolve_tensor(item).detach()
        block = block_of(info.shape, index)
        source = None if info.offset is None else reader.source(piece.key)
        straight = target.device.type == "cpu" and target.is_contiguous() and is_run(block)
        if (
            source is not None
            and info.offset is not None
            and straight
            and str(target.dtype) == f"torch.{info.dtype}"
            and fits(info, source.size)
        ):
            begin = info.offset + block.begin * target.element_size()
            runs.append(gather.piece(source, begin, target))
        else:
            target.copy_(reader.slice(piece.key, index))
        filled.append((item, target, info))
    gather.gather(runs)
    for item, target, info in filled:
        if target.device.type == "cpu":
            check_bools(target, info)
        planner.commit_tensor(item, target)


def _info(reader: FileReader, sharded: Sharded, piece: Piece) -> TensorInfo:
    """The chunk as its file has it, if that is what the index says."""
    info = reader.get(piece.key)
    if info is None or (info.dtype, info.shape) != (sharded.dtype, piece.box.sizes):
        found = "nothing" if info is None else f"{info.dtype} {info.shape}"
        raise WeightsError(
            f"{piece.file or 'the file'} does not hold what the index says of {show(piece.key)}",
            cause=f"{sharded.dtype} {piece.box.sizes} is announced, and it holds {found}",
            remedy=DAMAGED,
        )
    return info


def _of_file(reader: FileReader) -> Index:
    """The index that a file of whole tensors would have."""
    tensors = {}
    for name, info in reader.items():
        box = Box((0,) * len(info.shape), info.shape)
        tensors[name] = Sharded(info.dtype, info.shape, (Piece(box, "", name),))
    return Index(serializer=None, tensors=tensors)


def _metadata_of(index: Index, path: Path) -> Metadata:
    listed: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
    places: dict[MetadataIndex, str] = {}
    for name, each in index.tensors.items():
        chunks = [
            ChunkStorageMetadata(torch.Size(p.box.offsets), torch.Size(p.box.sizes))
            for p in each.pieces
        ]
        properties = TensorProperties(dtype=getattr(torch, each.dtype))
        listed[name] = TensorStorageMetadata(properties, torch.Size(each.shape), chunks)
        places.update({MetadataIndex(name, p.box.offsets): p.file for p in each.pieces})
    for name in index.values:
        listed[name] = BytesStorageMetadata()
        places[MetadataIndex(name)] = NAME
    return Metadata(
        listed,
        planner_data={name: index.paths.get(name, (name,)) for name in listed},
        storage_data=places,
        storage_meta=StorageMeta(checkpoint_id=path),
    )
