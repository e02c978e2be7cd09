"""The serializer: tells its files, and opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint import Reader, Serializer
from hardpoint.storage.source import LocalFile, Source
from hardpoint_checkpoint.index import find_in_directory, in_directory, open_index
from hardpoint_checkpoint.opening import open_file, sniff
from hardpoint_checkpoint.refuse import refuse, show


class CheckpointSerializer(Serializer):
    """What ``torch.save`` writes, and sharded sets of it with an index."""

    def recognizes(self, path: Path) -> bool:
        """By content: a zip archive with a ``data.pkl`` in a folder, the old magic number, or JSON.

        A directory is one if it holds ``pytorch_model.bin`` or its index, and no safetensors file.
        """
        if path.is_dir():
            return in_directory(path) is not None
        return path.is_file() and self.recognizes_source(LocalFile(path))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`."""
        return sniff(source) is not None

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Understand the pickle, running nothing, and map the file.

        :raises WeightsError: damaged or hostile file, one that needs code, or no such device.
        """
        on = _device(path, device)
        return _open(LocalFile(find_in_directory(path) if path.is_dir() else path), on)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`; of a file behind a URL its directory, headers and pickle are read now.

        :raises WeightsError: as :meth:`open`.
        """
        return _open(source, _device(source.name, device))

    def scan(self, path: Path) -> Mapping[str, object]:
        """What the file's pickles name, and whether it is refused: see :mod:`.scan`.

        :raises WeightsError: it cannot be opened at all.
        """
        from hardpoint_checkpoint.scan import scan

        return scan(find_in_directory(path) if path.is_dir() else path)

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Refused: pickles are read here, not made.

        :raises WeightsError: always.
        """
        raise refuse(
            path,
            "checkpoints are not written",
            "a file that others must trust to read is no way to hand on weights",
            "save them as safetensors, or with torch.save",
        )


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
    kind = "index" if source.name.endswith(".json") else sniff(source)
    return open_index(source, device, open_file) if kind == "index" else open_file(source, device)
