"""The reader: weights in the model from memory, external ones from the maps of their files."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import torch

from hardpoint import Index, Reader, TensorInfo
from hardpoint.storage.slices import block_of, checked
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint.storage.typed import check_bools, dtype_of
from hardpoint_onnx.external import Place, open_place
from hardpoint_onnx.model import Initializer, read_model
from hardpoint_onnx.refuse import refuse, show


class OnnxReader(Reader):
    """The initializers of a model's graph. Usable from several threads.

    What is in the model is copied out of it each time it is asked for; external data are mapped.
    Each of their files is opened when first needed, and held to what it was when the model was.

    :raises WeightsError: the model is refused, or its external data are not there, or too short.
    """

    def __init__(self, source: Source, device: torch.device) -> None:
        self._name = source.name
        self._source: Source | None = source
        self._device = device
        model = read_model(source)
        self._metadata = MappingProxyType(model.metadata)
        self._inline = {e.name: e.data for e in model.initializers if isinstance(e.data, bytes)}
        self._places = {e.name: e.data for e in model.initializers if isinstance(e.data, Place)}
        self._files = _check_places(source, model.initializers)
        self._table = {each.name: self._info(each) for each in model.initializers}
        self._tables: dict[str, TableReader] = {}
        self._lock = threading.Lock()

    def _info(self, each: Initializer) -> TensorInfo:
        name, dtype, shape, nbytes, data = each
        if isinstance(data, bytes):
            return TensorInfo(name, dtype.torch_name, shape, nbytes, self._name)
        file, _ = self._files[data.location]
        return TensorInfo(name, dtype.torch_name, shape, nbytes, file, data.offset)

    def _opened(self) -> Source:
        if self._source is None:
            raise refuse(
                self._name, "the reader is closed", "it was closed", "open the model again"
            )
        return self._source

    def _external(self, location: str) -> TableReader:
        """All tensors of one file of external data."""
        with self._lock:
            model = self._opened()
            if location not in self._tables:
                source = open_place(model, location)
                file, size = self._files[location]
                if source.size != size:
                    raise refuse(
                        file,
                        "the file changed while the model was open",
                        f"it had {size} bytes, and has {source.size}",
                        "open the model again",
                    )
                table = {
                    name: self._table[name]
                    for name, place in self._places.items()
                    if place.location == location
                }
                self._tables[location] = TableReader(
                    source, table, refuse=refuse, device=self._device
                )
            return self._tables[location]

    @property
    def metadata(self) -> Mapping[str, str]:
        """The model's ``metadata_props``."""
        self._opened()
        return self._metadata

    def source(self, name: str) -> Source | None:
        """The file of external data that holds the tensor."""
        self._opened()
        place = self._places.get(name)
        return None if place is None else self._external(place.location).source(name)

    def __iter__(self) -> Iterator[str]:
        """Names in the model's order."""
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

    def tensor(self, name: str) -> torch.Tensor:
        """A copy of what is in the model; of external data, as :meth:`TableReader.tensor`."""
        return self.slice(name, ())

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """``tensor(name)[index]``, copying or reading no more than its rows.

        :raises WeightsError: no such tensor, or an index outside it or of another type.
        """
        self._opened()
        info = self._table.get(name)
        if info is None:
            raise refuse.no_such_tensor(self._name, name, self._table)
        place = self._places.get(name)
        if place is not None:
            return self._external(place.location).slice(name, index)
        try:
            found = _copy(info, self._inline[name], checked(index, len(info.shape)))
        except (IndexError, ValueError) as error:
            raise refuse(
                self._name,
                f"tensor {show(name)} of shape {info.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        return found.to(self._device)

    def close(self) -> None:
        """Let go of all files; the maps themselves go with the last tensors of them."""
        with self._lock:
            self._source = None
            for reader in self._tables.values():
                reader.close()
            self._tables.clear()
            self._inline = {}


def _check_places(model: Source, initializers: list[Initializer]) -> dict[str, tuple[str, int]]:
    """Name and size of each file of external data, if all tensors lie in them.

    A model may have a file a tensor: none is kept open.
    """
    files: dict[str, tuple[str, int]] = {}
    for name, dtype, shape, nbytes, data in initializers:
        if not isinstance(data, Place):
            continue
        if data.location not in files:
            source = open_place(model, data.location)
            files[data.location] = (source.name, source.size)
        file, size = files[data.location]
        there = size - data.offset if data.length is None else nbytes
        if data.offset + nbytes > size or there != nbytes:
            raise refuse(
                file,
                f"tensor {show(name)} does not fit the file of its data",
                f"{dtype.name} of shape {show(shape)} takes {nbytes} bytes from byte"
                f" {data.offset} on, and the file has {size}",
            )
    return files


def _copy(info: TensorInfo, data: bytes, index: tuple[int | slice, ...]) -> torch.Tensor:
    block, dtype = block_of(info.shape, index), dtype_of(info)
    begin = block.begin * dtype.itemsize
    raw = bytearray(memoryview(data)[begin : begin + math.prod(block.shape) * dtype.itemsize])
    if not raw:
        return torch.empty(block.shape, dtype=dtype)[block.part]
    found = torch.frombuffer(raw, dtype=torch.uint8).view(dtype).view(block.shape)[block.part]
    check_bools(found, info)
    return found
