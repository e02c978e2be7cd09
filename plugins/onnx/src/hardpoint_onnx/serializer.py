"""The serializer: tells ONNX models, and opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint import Reader, Serializer
from hardpoint.storage.source import LocalFile, Source
from hardpoint_onnx.outline import problem
from hardpoint_onnx.reader import OnnxReader
from hardpoint_onnx.refuse import refuse, show


class OnnxSerializer(Serializer):
    """``*.onnx``, and the files of external data beside it."""

    def recognizes(self, path: Path) -> bool:
        """By its outermost fields, which must be a model's and no others.

        A file that is cut short is still recognized, so that opening it can say so.
        """
        return path.is_file() and self.recognizes_source(LocalFile(path))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`; reads the heads of those fields alone."""
        return not problem(source, cut_is_fine=True)

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Parse ``path``. On ``"cpu"`` tensors of external data are views of their files.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        return self.open_source(LocalFile(path), device=device)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`; of a model behind a URL all is read, and external data when asked for.

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
        return OnnxReader(source, on)

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing is written: a model is more than its weights.

        :raises WeightsError: always.
        """
        raise refuse(
            path,
            "ONNX models are only read",
            "a model is a graph with weights, and only weights are given",
            "save as safetensors, or export the module with torch.onnx.export",
        )
