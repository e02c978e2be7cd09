"""The serializer: tells its files, opens them, saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint import Reader, Serializer, WeightsError
from hardpoint.storage.source import LocalFile, Source
from hardpoint_numpy.header import MAGIC
from hardpoint_numpy.reader import SUFFIX, open_archive, open_array
from hardpoint_numpy.records import END, END_MAGIC, LOCAL, LOCAL_MAGIC
from hardpoint_numpy.refuse import refuse, show
from hardpoint_numpy.write import save_archive, save_array

_MAX_NAME = 0xFFFF


class NumpySerializer(Serializer):
    """``.npz`` archives of arrays, and ``.npy`` files of one."""

    def recognizes(self, path: Path) -> bool:
        """By content: an array's magic word, or a zip archive whose first member is a ``.npy``."""
        return path.is_file() and self.recognizes_source(LocalFile(path))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`; reads 64 KiB at most. An empty archive must be called ``.npz``."""
        head = source.read(0, min(source.size, LOCAL.size))
        if head.startswith(MAGIC):
            return True
        if len(head) == LOCAL.size and head.startswith(LOCAL_MAGIC):
            length = LOCAL.unpack(head)[-2]
            name = source.read(LOCAL.size, min(length, source.size - LOCAL.size))
            return len(name) == length and name.endswith(SUFFIX.encode())
        empty = head.startswith(END_MAGIC) and len(head) >= END.size
        return empty and source.name.endswith(".npz")

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Map ``path``. On ``"cpu"`` most tensors are views of the file; elsewhere they are copies.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        return self.open_source(LocalFile(path), device=device)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`; of a file behind a URL headers are read now, and tensors when asked.

        :raises WeightsError: damaged or hostile file, or no such device.
        """
        on = _device(source.name, device)
        if source.read(0, min(source.size, len(MAGIC))) == MAGIC:
            return open_array(source, on)
        return open_archive(source, on)

    def holds_metadata(self, path: Path) -> bool:
        """An archive does, a ``.npy`` file does not."""
        return not path.name.endswith(SUFFIX)

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write one file atomically and durably; the same content gives the same bytes.

        To ``*.npy``: exactly one tensor, called ``"array"``, and no metadata. To any other name: a
        ``.npz`` archive.

        :raises WeightsError: a tensor or name that the format cannot hold, or a failed write.
        """
        if path.is_dir():
            raise refuse(
                path,
                "tensors are saved to one file",
                "this path names a directory",
                "give a path that ends in .npz",
            )
        save = save_array if path.name.endswith(SUFFIX) else save_archive
        save(tensors, path, metadata or {})


def _device(file: object, device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise _no_device(file, device, error) from error


def _no_device(file: object, device: str, error: RuntimeError) -> WeightsError:
    return refuse(
        file,
        f"the file cannot be opened for device {show(device)}",
        str(error).splitlines()[0],
        "name a PyTorch device, e.g. 'cpu' or 'cuda:0'",
    )
