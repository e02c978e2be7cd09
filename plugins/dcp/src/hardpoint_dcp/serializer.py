"""The serializer: tells its directories, opens them, saves them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hardpoint import Reader, Serializer
from hardpoint.storage.directory import aside
from hardpoint.storage.source import LocalFile, Source
from hardpoint_dcp.metadata import METADATA, SUFFIX
from hardpoint_dcp.reader import DcpReader, open_local
from hardpoint_dcp.refuse import refuse, show

_SNIFFED = 4096
_SIGN = b"torch.distributed.checkpoint.metadata"


class DcpSerializer(Serializer):
    """Directories with a ``.metadata``, and that file itself."""

    def recognizes(self, path: Path) -> bool:
        """By content: a pickle that begins by naming DCP's metadata.

        A directory whose save was not finished is none: it has no metadata.
        """
        file = path / METADATA if path.is_dir() else path
        return file.is_file() and self.recognizes_source(LocalFile(file))

    def recognizes_source(self, source: Source) -> bool:
        """As :meth:`recognizes`, of the ``.metadata`` file; reads four kibibytes at most."""
        start = source.read(0, min(source.size, _SNIFFED))
        return start[:1] == b"\x80" and _SIGN in start

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        """Read the metadata of the checkpoint ``path``, or of the one whose metadata that is.

        :raises WeightsError: damaged, hostile or unfinished checkpoint, or no such device.
        """
        on = _device(path, device)
        if path.is_dir() or not path.exists():
            _check_finished(path)
            path /= METADATA
        return open_local(path, on)

    def open_source(self, source: Source, *, device: str = "cpu") -> Reader:
        """As :meth:`open`, by the URL of ``.metadata``; the other files are read beside it.

        :raises WeightsError: damaged or hostile checkpoint, or no such device.
        """
        return DcpReader(source, _device(source.name, device))

    def save(
        self,
        tensors: Mapping[str, torch.Tensor],
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write a directory, whole or not at all; the same content gives the same bytes.

        What stood there is replaced if it is a checkpoint and nothing else. Metadata becomes values
        beside the tensors, which ``torch.distributed.checkpoint.load`` gives as text.

        :raises WeightsError: a tensor or name that cannot be saved, or a failed write.
        """
        # PyTorch's own classes are needed to write; importing them changes warnings' filters.
        from hardpoint_dcp.write import save_directory

        save_directory(tensors, path, metadata or {})


def _device(file: object, device: str) -> torch.device:
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise refuse(
            file,
            f"the checkpoint cannot be opened for device {show(device)}",
            str(error).splitlines()[0],
            "name a PyTorch device, e.g. 'cpu' or 'cuda:0'",
        ) from error


def _check_finished(path: Path) -> None:
    """Say what is amiss with a directory that has no metadata."""
    if (path / METADATA).exists():
        return
    if not path.exists() and aside(path).exists():
        raise refuse(
            path,
            "the checkpoint was about to be replaced, and is not in its place",
            "whoever saved it was stopped at that moment",
            f"it is whole: rename {aside(path)} to {path}, or save again",
        )
    if path.exists() and next(path.glob(f"*{METADATA}"), None):
        raise refuse(
            path,
            "each rank wrote metadata of its own",
            "it was saved with use_collectives=False",
            "save it with collectives, which write one .metadata for all",
        )
    if path.exists() and next(path.glob(f"*{SUFFIX}"), None):
        raise refuse(
            path,
            "the checkpoint is not finished",
            f"it has *{SUFFIX} files and no {METADATA}, which is written last",
            "wait until it is saved; if whoever saved it is gone, use an older checkpoint",
        )
    raise refuse(
        path,
        "this is no checkpoint",
        f"there is no {METADATA} in it",
        "name the directory that torch.distributed.checkpoint saved",
    )
