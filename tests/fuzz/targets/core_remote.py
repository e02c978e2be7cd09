"""A remote file whose server answers as the input says: other sizes, short and long answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from guard import watched
from invariants import read_with
from target import Target

from hardpoint.storage.remote import RemoteFile
from hardpoint_safetensors.reader import open_file
from targets import safetensors_file

_HEAD = 8
_STRANGE = 0xF8
_SIZES = (None, -1, 0, 1, 1 << 40, True, "7", 2.0)


class _Server:
    """A file system of fsspec, of one file.

    :param orders: what each byte does: [0] and [1] the size that is told, [2] how much an answer
        has more or less that covers the byte [3:5].
    """

    protocol = "fuzz"

    def __init__(self, orders: bytes, data: bytes) -> None:
        self._data = data
        self._wrong = int.from_bytes(orders[2:3], "big", signed=True)
        self._where = int.from_bytes(orders[3:5], "little")
        self.told: object = len(data) + int.from_bytes(orders[1:2], "big", signed=True)
        if orders[0] >= _STRANGE:
            self.told = _SIZES[orders[0] - _STRANGE]

    def invalidate_cache(self) -> None:
        """As fsspec's."""

    def info(self, path: str) -> dict[str, Any]:
        return {"size": self.told, "type": "file", "ETag": path}

    def cat_file(self, path: str, start: int, end: int) -> bytes:
        return self._data[start : end + self._wrong * (start <= self._where < end)]


def run(data: bytes, folder: Path) -> None:
    orders, body = data[:_HEAD].ljust(_HEAD, b"\0"), data[_HEAD:]
    (folder / "body").write_bytes(body)
    server = _Server(orders, body)
    with watched(folder):
        found = read_with(
            lambda: open_file(
                RemoteFile("fuzz://x/m.safetensors", server, "m"), torch.device("cpu")
            ),
            folder,
        )
    if found is not None:
        assert type(server.told) is int
        safetensors_file.compare(body[: server.told], found)


def seeds() -> Iterator[bytes]:
    good = list(safetensors_file.TARGET.seeds())
    for orders in ("00", "f8", "f9", "fc", "0001", "0000010100", "0000ff0200", "0000014000"):
        for body in good[:3]:
            yield bytes.fromhex(orders).ljust(_HEAD, b"\0") + body


TARGET = Target(run=run, seeds=seeds, words=safetensors_file.words, longest=8192)
