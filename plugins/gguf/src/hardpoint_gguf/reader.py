"""The reader: plain tensors from the map, quantized ones computed when they are asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hardpoint import Index, TensorInfo
from hardpoint.storage.slices import block_of, checked
from hardpoint.storage.source import Source
from hardpoint.storage.table import TableReader
from hardpoint_gguf.dequantize import dequantize
from hardpoint_gguf.header import Entry, read_header
from hardpoint_gguf.refuse import refuse, show

# Metadata that we add: the type of a tensor that is given as float32 without being stored so.
QUANTIZED = "hardpoint.quantized:"


class GgufReader(TableReader):
    """The tensors of a file. Quantized ones are float32, made anew each time they are asked for.

    Their ``nbytes`` are those of the file, and they have no offset.
    """

    def __init__(
        self,
        source: Source,
        entries: list[Entry],
        metadata: Mapping[str, str],
        device: torch.device,
    ) -> None:
        table = {
            name: TensorInfo(
                name,
                type_.torch_name,
                shape,
                nbytes,
                source.name,
                None if type_.quantized else begin,
            )
            for name, type_, shape, begin, nbytes in entries
        }
        super().__init__(source, table, refuse=refuse, metadata=metadata, device=device)
        self._quantized = {entry.name: entry for entry in entries if entry.type.quantized}
        rows = {name: _rows(entry, source.name) for name, entry in self._quantized.items()}
        self._rows = TableReader(source, rows, refuse=refuse)

    def slice(self, name: str, index: Index) -> torch.Tensor:
        """As :meth:`TableReader.slice`; of a quantized tensor, only rows asked for are computed.

        :raises WeightsError: as there, or the type cannot be dequantized.
        """
        self._opened()
        entry = self._quantized.get(name)
        if entry is None:
            return super().slice(name, index)
        try:
            parts = checked(index, len(entry.shape))
            block_of(entry.shape, parts)  # for its errors: those of rows would tell bytes
            outer, last = parts[: len(entry.shape) - 1], parts[len(entry.shape) - 1 :]
            rows = self._rows.slice(name, outer)
            found = dequantize(rows, entry.type, self._name, name)
            inside: tuple[Any, ...] = (..., *last)
            found = found[inside] if last else found
        except (IndexError, ValueError) as error:
            raise refuse(
                self._name,
                f"tensor {show(name)} of shape {entry.shape} has no slice {show(index)}",
                str(error),
                "use whole numbers within the shape, and slices with positive steps",
            ) from error
        return found.to(self._device)

    def close(self) -> None:
        """Let go of the file; the map itself goes with the last tensor of it."""
        super().close()
        self._rows.close()


def open_file(source: Source, device: torch.device) -> GgufReader:
    """Parse the header; nothing else of the file is read.

    :raises WeightsError: the file cannot be read, or its header is refused.
    """
    header = read_header(source)
    types = {QUANTIZED + e.name: e.type.name for e in header.tensors if e.type.quantized}
    return GgufReader(source, header.tensors, {**header.metadata, **types}, device)


def _rows(entry: Entry, file: str) -> TensorInfo:
    """The bytes of a quantized tensor, row by row."""
    per_row = entry.shape[-1] // entry.type.block * entry.type.nbytes
    return TensorInfo(
        entry.name, "uint8", (*entry.shape[:-1], per_row), entry.nbytes, file, entry.begin
    )
