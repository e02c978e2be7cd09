"""One item of a distributed checkpoint: the whole zip. The first byte says what it should hold."""

import io
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from target import Target
from wrapped import swapping_parts

from targets._dcp_items import read_item


def run(data: bytes, folder: Path) -> None:
    read_item(int.from_bytes(data[:1], "little"), data[1:], folder)


def seeds() -> Iterator[bytes]:
    base = torch.arange(4.0).view(2, 2)
    values = {"a": [1, 2.5, None, {"b": True}]}
    held = ((0, "text"), (0, values), (0, OrderedDict(values)), (0, base), (1, base), (1, base.t()),
            (1, base[0]), (2, base > 1), (3, base.bfloat16()), (3, base))  # fmt: skip
    for kind, value in held:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        yield bytes([kind]) + buffer.getvalue()


def words() -> list[bytes]:
    return [
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"PK\6\6",
        b"PK\6\7",
        b"data.pkl",
        b"byteorder",
        b"data/0",
        b"\xff" * 4,
    ]


TARGET = Target(run=run, seeds=seeds, mutate=swapping_parts, words=words, longest=4096)
