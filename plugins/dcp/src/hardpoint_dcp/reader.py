"""The reader: tensors put together from their chunks, touching only what is asked for."""

from __future__ import annotations

import builtins
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from hardpoint import Index, Reader, TensorInfo, WeightsError
from hardpoint.storage.boxes import part_of, ranges_of
from hardpoint.storage.gather import Piece, gather, piece
from hardpoint.storage.slices import block_of, checked, is_run
from hardpoint.storage.source import LocalFile, Source
from hardpoint.storage.typed import check_bools, dtype_of
from hardpoint_dcp.dtypes import ITEMSIZE
from hardpoint_dcp.files import Files
from hardpoint_dcp.item import Item, tensor_at, value_at
from hardpoint_dcp.metadata import MAX_BYTES, Chunk, Contents, parse
from hardpoint_dcp.refuse import refuse, show

# Savers may replace a checkpoint again and again while it is opened.
_TRIES = 100


def open_local(path: Path, device: torch.device) -> DcpReader:
    """Open a checkpoint by its ``.metadata``, all files of it from one and the same save.

    :raises WeightsError: as :class:`DcpReader`, or it is replaced all the time.
    """
    for _ in range(_TRIES):
        stamp = _stamp(path)

        def check(stamp: object = stamp) -> None:
            if _stamp(path) != stamp:
                raise refuse(
                    path,
                    "the checkpoint was replaced while it was open",
                    "another program saved to the same name",
                    "open it again",
                )

        try:
            reader = DcpReader(LocalFile(path), device, check)
            check()
        except WeightsError:
            if stamp is None or _stamp(path) == stamp:
                raise
            continue
        return reader
    raise refuse(
        path,
        f"the checkpoint was replaced {_TRIES} times while it was opened",
        "other programs save to the same name all the time",
        "save to a name for each step",
    )


def _stamp(path: Path) -> tuple[int, ...] | None:
    """What tells this file from another of its name; ``None`` if there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - any path, also one with a NUL
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class DcpReader(Reader):
    """A checkpoint, open by its ``.metadata``. Usable from several threads.

    Opening reads the metadata and looks at the files' sizes. An item's own zip is looked at when
    its tensor is first asked about, and its data when that is read.

    :param check: raises WeightsError if the metadata is no longer that of the files beside it.
    :raises WeightsError: the metadata is refused, or a file is missing or too short.
    """

    def __init__(
        self, source: Source, device: torch.device, check: Callable[[], None] = lambda: None
    ) -> None:
        if source.size > MAX_BYTES:
            raise refuse(
                source.name,
                "the metadata is too large",
                f"it has {source.size} bytes; at most {MAX_BYTES} are read",
            )
        self._name = source.name
        self._device = device
        self._files: Files | None = Files(source, check)
        self._contents = parse(source.read(0, source.size), source.name)
        self._items: dict[Chunk, Item] = {}
        self._values: Mapping[str, str] | None = None
        self._check_ranges(self._files)

    def _check_ranges(self, files: Files) -> None:
        ends: dict[str, tuple[int, str]] = {}
        for name, place in self._contents.places:
            ends[place.file] = max(
                ends.get(place.file, (0, "")), (place.offset + place.length, name)
            )
        for file, (end, name) in ends.items():
            size = files.size(file)
            if size < end:
                raise refuse(
                    self._name,
                    f"{file} is cut short",
                    f"{show(name)} should take its bytes up to {end}, and it has {size}",
                )

    def _opened(self) -> tuple[Files, Contents]:
        if self._files is None:
            raise refuse(
                self._name, "the reader is closed", "it was closed", "open the checkpoint again"
            )
        return self._files, self._contents

    @property
    def metadata(self) -> Mapping[str, str]:
        """The values that are no tensors: text as it is, all else as JSON.

        :raises WeightsError: one of them is no plain value; the tensors can be read all the same.
        """
        files, contents = self._opened()
        if self._values is None:
            found = {
                name: value_at(files[place.file].source, place, name)
                for name, place in contents.values.items()
            }
            self._values = MappingProxyType(found)
        return self._values

    def source(self, name: str) -> Source | None:
        """The file that holds all of the tensor, if one does."""
        files, contents = self._opened()
        if self[name].offset is None:
            return None
        place = contents.tensors[name].chunks[0].place
        return None if place is None else files[place.file].source

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the metadata."""
        return iter(self._opened()[1].tensors)

    def __len__(self) -> int:
        return len(self._opened()[1].tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._opened()[1].tensors

    def __getitem__(self, name: str) -> TensorInfo:
        """:raises KeyError: no such tensor (this is a mapping; :meth:`tensor` explains more).

        :raises WeightsError: its only chunk is broken.
        """
        stored = self._opened()[1].tensors[name]
        nbytes = math.prod(stored.shape) * ITEMSIZE[stored.dtype]
        if len(stored.chunks) != 1:
            return TensorInfo(name, stored.dtype, stored.shape, nbytes, self._name)
        item, info = self._chunk(name, stored.chunks[0])
        # An offset promises plain elements; others only we can put in order.
        return info if item.plain else TensorInfo(name, *_seen(item), info.file)

    def _chunk(self, name: str, chunk: Chunk) -> tuple[Item, TensorInfo]:
        """The item of a chunk, checked against the metadata, and where its bytes are."""
        files, contents = self._opened()
        stored, place = contents.tensors[name], chunk.place
        assert place is not None, "parse() keeps no empty chunks"
        source = files[place.file].source
        item = self._items.get(chunk)
        if item is None:
            item = tensor_at(source, place, name)
            if (item.dtype, item.shape) != (stored.dtype, chunk.box.sizes):
                raise refuse(
                    self._name,
                    f"tensor {show(name)} is not what the metadata says",
                    f"{stored.dtype} {show(chunk.box.sizes)} is announced, and {place.file} holds"
                    f" {item.dtype} {show(item.shape)}",
                )
            self._items[chunk] = item
        itemsize = ITEMSIZE[item.dtype]
        if item.plain:
            shape, begin = item.shape, item.offset + item.first * itemsize
        else:
            shape, begin = (item.elements,), item.offset
        nbytes = math.prod(shape) * itemsize
        return item, TensorInfo(name, item.dtype, shape, nbytes, source.name, begin)

    def files(self) -> tuple[str, ...]:
        """The metadata, and every file with an item of it."""
        files, contents = self._opened()
        names = dict.fromkeys(place.file for _, place in contents.places)
        return (self._name, *(files[name].source.name for name in names))

    def tensor(self, name: str) -> torch.Tensor:
        """A view of the mapped file where one chunk holds the tensor aligned; else a copy.

        :raises WeightsError: no such tensor, or a chunk of it is broken.
        """
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]`` for ints and slices; reads only the chunks that it touches.

        :raises WeightsError: no such tensor, or an index outside it or of another type.
        """
        _, contents = self._opened()
        stored = contents.tensors.get(name)
        if stored is None:
            raise refuse.no_such_tensor(self._name, name, contents.tensors)
        try:
            parts = checked(index, len(stored.shape))
            ranges = ranges_of(stored.shape, parts)
        except (IndexError, ValueError) as error:
            raise refuse(
                self._name,
                f"tensor {show(name)} of shape {stored.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        if len(stored.chunks) == 1:
            inside = tuple(slice(r.start, max(r.start, r.stop), r.step) for r in ranges)
            found = self._part(name, stored.chunks[0], inside)
        else:
            found = self._assembled(name, ranges)
        # Whole numbers were taken as slices of one element; their dimensions go.
        kept = tuple(0 if isinstance(part, int) else slice(None) for part in parts)
        return found[kept].to(self._device) if kept else found.to(self._device)

    def _part(self, name: str, chunk: Chunk, index: tuple[builtins.slice, ...]) -> torch.Tensor:
        item, info = self._chunk(name, chunk)
        assert chunk.place is not None
        file = self._opened()[0][chunk.place.file]
        if item.plain:
            return file.part(info, index)
        flat = file.part(info)
        begin = int(flat.storage_offset()) + item.first
        return flat.as_strided(item.shape, item.strides, begin)[index]

    def _assembled(self, name: str, ranges: list[range]) -> torch.Tensor:
        """A new tensor of what ``ranges`` take; whole rows of bytes go straight to their place."""
        files, contents = self._opened()
        stored = contents.tensors[name]
        info = TensorInfo(name, stored.dtype, stored.shape, 0, self._name)
        made = torch.empty([len(each) for each in ranges], dtype=dtype_of(info))
        pieces: list[Piece] = []
        for chunk in stored.chunks:
            part = part_of(chunk.box, ranges)
            if part is None:
                continue
            item, where = self._chunk(name, chunk)
            assert chunk.place is not None
            assert where.offset is not None
            target, block = made[part.to], block_of(item.shape, part.inside)
            if item.plain and is_run(block) and target.is_contiguous():
                begin = where.offset + block.begin * made.element_size()
                pieces.append(piece(files[chunk.place.file].source, begin, target))
            else:
                target.copy_(self._part(name, chunk, part.inside))
        gather(pieces)
        check_bools(made, info)
        return made

    def close(self) -> None:
        """Let go of the files; maps go with the last tensor of them."""
        self._files = None


def _seen(item: Item) -> tuple[str, tuple[int, ...], int]:
    return item.dtype, item.shape, math.prod(item.shape) * ITEMSIZE[item.dtype]
