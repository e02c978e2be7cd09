"""What a file that nobody reads seems to hold, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hardpoint.storage.source import Source

_HEAD = 512
_DEFAULT_REMEDY = "check the file, or install the serializer of its format (`hardpoint list`)"
_CHECKPOINT = "checkpoint, which reads them without running anything"
_INSTALL = "install hardpoint-"

# First bytes -> what that is, and the remedy. A pickle begins with PROTO and its protocol.
_KNOWN = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes", _INSTALL + _CHECKPOINT),
    (b"PK\x05\x06", "an empty zip archive", _DEFAULT_REMEDY),
    *(
        (b"\x80" + bytes([protocol]), "a pickle, which can run code", _INSTALL + _CHECKPOINT)
        for protocol in range(2, 6)
    ),
    (b"GGUF", "GGUF", _INSTALL + "gguf"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "fetch the file: git lfs pull",
    ),
    (b"\x1f\x8b", "gzip-compressed data", "decompress it first: weights are mapped, not inflated"),
    (b"\x89HDF\r\n", "HDF5", _DEFAULT_REMEDY),
    (b"\x93NUMPY", "a numpy array", _INSTALL + "numpy"),
    (b"<", "HTML or XML, maybe an error page", "download the file again, and look at it"),
)


def describe_content(path: Path) -> str:
    """What ``path`` seems to hold, in words, from its first bytes."""
    return look(path)[0]


def name_of(place: Path | Source) -> str:
    """Path or URL, for people."""
    return str(place) if isinstance(place, Path) else place.name


def look(place: Path | Source, tried: Collection[str] = ()) -> tuple[str, str]:
    """What a file seems to hold, and what to do so that it can be read.

    :param tried: serializers that are installed, and do not know the file.
    """
    words, remedy = _look(place)
    needed = remedy.removeprefix(_INSTALL).split(",")[0]
    if remedy.startswith(_INSTALL) and needed in tried:
        remedy = f"check the file: hardpoint-{needed} is installed, and does not know it"
    return words, remedy


def _look(place: Path | Source) -> tuple[str, str]:
    if not isinstance(place, Path):
        return _by_head(place.read(0, min(place.size, _HEAD)))
    path = place
    if path.is_dir():
        return "a directory", "name the file in it, or install the serializer of its format"
    if not path.is_file():  # a pipe might never answer
        return "a pipe or device, no file", "save its content to a file first"
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"something unreadable: {error.strerror}", "check its permissions"
    return _by_head(head)


def _by_head(head: bytes) -> tuple[str, str]:
    if not head:
        return "nothing: it is empty", _DEFAULT_REMEDY
    for start, words, remedy in _KNOWN:
        if head.startswith(start):
            return words, remedy
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON", _DEFAULT_REMEDY
    return f"unknown data that begins with {head[:8].hex(' ')}", _DEFAULT_REMEDY


def printable(name: str, most: int = 200) -> str:
    """A name from a file as it can be shown: a terminal obeys the control characters in one."""
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def some(names: Collection[str], most: int = 4) -> str:
    """The first few of ``names``, and how many more there are."""
    shown = ", ".join(printable(name, 80) for name in sorted(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
