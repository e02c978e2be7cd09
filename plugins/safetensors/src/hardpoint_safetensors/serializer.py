"""The serializer: tells its files, opens them, saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from hardpoint import Reader, Serializer
from hardpoint.storage.source import LocalFile, Source
from hardpoint_safetensors.header import LENGTH_BYTES, MAX_HEADER
from hardpoint_safetensors.index import INDEX_SUFFIX, candidates, find_in_directory
from hardpoint_safetensors.reader import open_file, open_index
from hardpoint_safetensors.refuse import refuse, show
from hardpoint_safetensors.write import save_file

_MAX_SNIFFED = 1 << 20


class SafetensorsSerializer(Serializer):
    """``*.safetensors``, ``*.safetensors.index.json``, and directories that hold one of either."""

    def recognizes(self, path: Path) -> bool:
        """By content: a plausible header length and then ``{``; or JSON that maps to shards.

        A file that is cut short is still recognized, so that opening it can say so.
        """
        if path.is_dir():
            return bool(candidates(path))
        return path.is_file() and self.recognizes_source(LocalFile(path))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`; reads a mebibyte at most."""
        return _sniff(source) is not None

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Map ``path``. On ``"cpu"`` tensors are views of the file; elsewhere they are copies.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        on = _device(path, device)
        return _open(LocalFile(find_in_directory(path) if path.is_dir() else path), on)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`; of a file behind a URL the header is read now, and tensors when asked.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        return _open(source, _device(source.name, device))

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write one file atomically and durably; the same content gives the same bytes.

        Tensors that share memory are each written in full. One that is not contiguous, or not on
        the CPU, is copied while it is written; one at a time.

        :raises WeightsError: a tensor or name that the format cannot hold, or a failed write.
        """
        if path.name.endswith(".json") or path.is_dir():
            raise refuse(
                path,
                "tensors are saved to one file",
                "this path names an index or a directory",
                "give a path that ends in .safetensors",
            )
        save_file(tensors, path, metadata or {})


def _device(file: object, device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise refuse(
            file,
            f"the file cannot be opened for device {show(device)}",
            str(error).splitlines()[0],
            "name a PyTorch device, e.g. 'cpu' or 'cuda:0'",
        ) from error


def _open(source: Source, device: torch.device) -> Reader:
    if source.name.endswith(".json") or _sniff(source) == "index":
        return open_index(source, device)
    return open_file(source, device)


def _sniff(source: Source) -> Literal["file", "index"] | None:
    """What the first bytes of a file look like."""
    start = source.read(0, min(source.size, LENGTH_BYTES + 1))
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    if start[LENGTH_BYTES:] == b"{" and len("{}") <= length <= MAX_HEADER:
        return "file"
    if start[:1] != b"{":
        return None
    # The map comes first, or after a few lines of metadata.
    start = source.read(0, min(source.size, _MAX_SNIFFED))
    ours = source.name.endswith(INDEX_SUFFIX) or b'.safetensors"' in start
    return "index" if ours and b'"weight_map"' in start else None
