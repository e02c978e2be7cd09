"""A reader made of a table: what tensors there are, and where their elements lie."""

from __future__ import annotations

import math
import threading
from collections.abc import ItemsView, Iterator, Mapping
from types import MappingProxyType

import torch

from hardpoint.interfaces.serializer import Index, Reader, TensorInfo
from hardpoint.storage.buffers import allocate
from hardpoint.storage.gather import gather, piece
from hardpoint.storage.mapped import MappedSource
from hardpoint.storage.refusal import Refusal, show
from hardpoint.storage.slices import block_of, checked
from hardpoint.storage.source import Source
from hardpoint.storage.typed import check_bools, dtype_of


class TableReader(Reader):
    """All tensors of one file, each row-major and little-endian at its ``offset``.

    Usable from several threads. On this machine tensors are views of the mapped file; of a remote
    one they are read, and so are those for another device than the CPU.

    :param table: of the tensors, in the order in which the file is best read.
    :param source: that the offsets count in.
    """

    def __init__(
        self,
        source: Source,
        table: Mapping[str, TensorInfo],
        *,
        refuse: Refusal,
        metadata: Mapping[str, str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._name = source.name
        self._source: Source | None = source
        self._table = table
        self._metadata = MappingProxyType(dict(metadata or {}))
        self._device = torch.device(device)
        self._refuse = refuse
        self._mapped: MappedSource | None = None
        self._lock = threading.Lock()

    def _opened(self) -> Source:
        source = self._source
        if source is None:
            raise self._refuse(
                self._name, "the reader is closed", "it was closed", "open the file again"
            )
        return source

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's own free-form metadata."""
        self._opened()
        return self._metadata

    def source(self, name: str) -> Source:
        """As :meth:`Reader.source`."""
        return self._opened()

    def __iter__(self) -> Iterator[str]:
        """Names in the order of the data, so that reading them all reads the file forwards."""
        self._opened()
        return iter(self._table)

    def __len__(self) -> int:
        self._opened()
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        self._opened()
        return name in self._table

    def __getitem__(self, name: str) -> TensorInfo:
        """:raises KeyError: no such tensor (this is a mapping; :meth:`tensor` explains more)."""
        self._opened()
        return self._table[name]

    def items(self) -> ItemsView[str, TensorInfo]:
        """Names and what they name, in the order of the data."""
        self._opened()
        return self._table.items()

    def tensor(self, name: str) -> torch.Tensor:
        """A view of the mapped file: copied only if misaligned, remote, or for another device.

        Asking twice gives the same memory. ``torch.save`` of a view would write the whole file:
        clone it first.

        :raises WeightsError: no such tensor, or a bool with bytes other than 0 and 1.
        """
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]`` for ints and slices; only the bytes asked for are ever read.

        Of a remote file: the rows from the first to the last that is asked for.

        :raises WeightsError: no such tensor, or an index outside it or of another type.
        """
        source = self._opened()
        info = self._table.get(name)
        if info is None:
            raise self._refuse.no_such_tensor(self._name, name, self._table)
        try:
            parts = checked(index, len(info.shape))
            mapped = self._map(source)
            found = mapped.tensor(info, parts) if mapped.possible else _read(source, info, parts)
        except (IndexError, ValueError) as error:
            raise self._refuse(
                self._name,
                f"tensor {show(name)} of shape {info.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        return found if self._device.type == "cpu" else found.to(self._device)

    def _map(self, source: Source) -> MappedSource:
        with self._lock:
            mapped = self._mapped or MappedSource(source)
            if self._source is not None:  # not closed meanwhile
                self._mapped = mapped
            return mapped

    def close(self) -> None:
        """Let go of the file; the map itself goes with the last tensor of it."""
        with self._lock:
            self._source = self._mapped = None


def _read(source: Source, info: TensorInfo, index: tuple[int | slice, ...]) -> torch.Tensor:
    assert info.offset is not None
    block, dtype = block_of(info.shape, index), dtype_of(info)
    nbytes = math.prod(block.shape) * dtype.itemsize
    tensor = allocate(nbytes).view(dtype).view(block.shape)
    gather([piece(source, info.offset + block.begin * dtype.itemsize, tensor)])
    found = tensor[block.part]
    check_bools(found, info)
    return found
