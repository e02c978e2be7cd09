"""The serializer: tells GGUF files, and opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint import Reader, Serializer
from hardpoint.storage.source import LocalFile, Source
from hardpoint_gguf.header import is_ours
from hardpoint_gguf.reader import open_file
from hardpoint_gguf.refuse import refuse, show


class GgufSerializer(Serializer):
    """``*.gguf``; one file of a split model at a time."""

    def recognizes(self, path: Path) -> bool:
        """By its first eight bytes: also of versions that are then refused by name."""
        return path.is_file() and self.recognizes_source(LocalFile(path))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`; reads those bytes alone."""
        return is_ours(source.read(0, min(source.size, 8)))

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Map ``path``. On ``"cpu"`` tensors that are not quantized are views of the file.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        return self.open_source(LocalFile(path), device=device)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`; of a file behind a URL the header is read now, and tensors when asked.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        try:
            on = torch.device(device)
        except RuntimeError as error:
            raise refuse(
                source.name,
                f"the file cannot be opened for device {show(device)}",
                str(error).splitlines()[0],
                "name a PyTorch device, e.g. 'cpu' or 'cuda:0'",
            ) from error
        return open_file(source, on)

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is written: a model in GGUF is more than its tensors.

        :raises WeightsError: always.
        """
        raise refuse(
            path,
            "GGUF files are only read",
            "names, vocabulary and settings must be as llama.cpp wants them of each architecture",
            "save as safetensors, and convert the model with convert_hf_to_gguf.py of llama.cpp",
        )
