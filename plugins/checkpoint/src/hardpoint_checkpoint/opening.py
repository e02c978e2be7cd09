"""One file: what it is, and its reader."""

from __future__ import annotations

from typing import Literal

import torch

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_checkpoint.archive import read_archive
from hardpoint_checkpoint.index import INDEX_SUFFIX
from hardpoint_checkpoint.legacy import MAGIC_BYTES, read_legacy
from hardpoint_checkpoint.reader import CheckpointReader
from hardpoint_checkpoint.refuse import refuse, show
from hardpoint_checkpoint.zipped import PICKLE, read_zip

Kind = Literal["zip", "legacy", "tar", "index"]
_HEAD = 1024
_MAX_SNIFFED = 1 << 20
_ZIP = b"PK\x03\x04"
_TAR_MEMBERS = (b"storages", b"tensors", b"pickle", b"./storages", b"./tensors", b"./pickle")


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
