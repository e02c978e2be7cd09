"""The ``.distcp`` files of a checkpoint: opened when first needed, not too many at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch

from hardpoint import TensorInfo
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint_dcp.refuse import refuse

# A checkpoint of thousands of ranks has as many files, and a process may often open a thousand.
_MOST_OPEN = 256


class OpenFile(NamedTuple):
    """A file, and a reader of the parts of it that were looked for; ``table`` is the reader's."""

    source: Source
    table: dict[str, TensorInfo]
    reader: TableReader

    def part(self, info: TensorInfo, index: tuple[slice, ...] = ()) -> torch.Tensor:
        """``tensor[index]`` of what ``info`` describes, over the mapped file where it can be."""
        key = f"{info.offset} {info.dtype} {info.shape}"
        self.table.setdefault(key, info)
        return self.reader.slice(key, index)


class Files:
    """Opens files beside the metadata by their bare names. Usable from several threads.

    :param check: called when a file was opened, whether it still belongs to that metadata.
    """

    def __init__(self, metadata: Source, check: Callable[[], None]) -> None:
        self._metadata = metadata
        self._check = check
        self._open: OrderedDict[str, OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def size(self, name: str) -> int:
        """Bytes of a file. It is kept open, unless there are many.

        :raises WeightsError: there is no such file.
        """
        with self._lock:
            full = len(self._open) >= _MOST_OPEN
        return (self._metadata.beside(name) if full else self[name].source).size

    def __getitem__(self, name: str) -> OpenFile:
        """:raises WeightsError: there is no such file, or it is of another save."""
        with self._lock:
            if name not in self._open:
                source = self._metadata.beside(name)
                self._check()
                table: dict[str, TensorInfo] = {}
                reader = TableReader(source, table, refuse=refuse)
                self._open[name] = OpenFile(source, table, reader)
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]
