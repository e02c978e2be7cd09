"""The serializer: tells its files, and opens them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from hardpoint import Reader, Serializer, WeightsError
from hardpoint.storage.source import LocalFile, Source
from hardpoint_checkpoint.archive import read_archive
from hardpoint_checkpoint.index import INDEX_SUFFIX, find_in_directory, in_directory, open_index
from hardpoint_checkpoint.legacy import MAGIC_BYTES, read_legacy
from hardpoint_checkpoint.reader import CheckpointReader
from hardpoint_checkpoint.refuse import refuse, show
from hardpoint_checkpoint.zipped import PICKLE, read_zip

Kind = Literal["zip", "legacy", "tar", "index"]
_HEAD = 1024
_MAX_SNIFFED = 1 << 20
_ZIP = b"PK\x03\x04"
_TAR_MEMBERS = (b"storages", b"tensors", b"pickle", b"./storages", b"./tensors", b"./pickle")


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


def sniff(source: Source) -> Kind | None:
    """What the file seems to be, by its first bytes; of a zip archive maybe also its directory."""
    head = source.read(0, min(source.size, _HEAD))
    if head.startswith(_ZIP):
        length = int.from_bytes(head[26:28], "little")
        if _is_pickle(head[30 : 30 + length].decode("utf-8", "replace")):
            return "zip"
        try:
            return "zip" if PICKLE in read_archive(source).members else None
        except WeightsError:
            return None
    if head[:1] == b"\x80" and MAGIC_BYTES in head[:32]:
        return "legacy"
    if head[257:262] == b"ustar" and head[:100].rstrip(b"\0/") in _TAR_MEMBERS:
        return "tar"
    if head.lstrip()[:1] == b"{":
        start = source.read(0, min(source.size, _MAX_SNIFFED))
        ours = source.name.endswith(INDEX_SUFFIX) or b'.bin"' in start
        return "index" if ours and b'"weight_map"' in start else None
    return None


def _is_pickle(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return bool(folder) and rest == PICKLE


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


def open_file(source: Source, device: torch.device) -> CheckpointReader:
    """The reader of one file.

    :raises WeightsError: it is refused, or none of ours.
    """
    kind = sniff(source)
    if kind in ("zip", "legacy"):
        read = read_zip if kind == "zip" else read_legacy
        return CheckpointReader(source, read(source), device)
    if kind == "tar":
        raise refuse(
            source.name,
            "this is a tar archive, as PyTorch wrote before 0.2",
            "its tensors are described by pickles that depend on each other, and are not read",
            "only if you trust whoever made it: torch.load(path, weights_only=False) it, and save"
            " its tensors anew",
        )
    if source.read(0, min(4, source.size)) == _ZIP:
        read_zip(source)  # says what is wrong with it
    head = source.read(0, min(source.size, 8))
    raise refuse(
        source.name,
        "this is no checkpoint",
        f"it begins with {show(head)}: not with what torch.save writes",
        "name a file that torch.save wrote; other pickles are never read",
    )
