"""The index that ``hardpoint.bridges.dcp`` writes beside the files of a sharded save."""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from guard import watched
from invariants import demand, refusing
from target import Target

from hardpoint.bridges.dcp_index import NAME, Index
from hardpoint.bridges.dcp_values import decode, encode
from hardpoint.storage.boxes import fills

# What is read is written again, to be read again: into memory, and none of it is to last.
os.environ["HARDPOINT_FSYNC"] = "0"


def prepare(folder: Path) -> None:
    (folder / "again").mkdir(exist_ok=True)  # a merge comes here twice


def run(data: bytes, folder: Path) -> None:
    (folder / NAME).write_bytes(data)
    found = None
    with watched(folder), refusing():
        found = Index.read(folder)
    if found is None:
        return
    for file in found.files:
        demand(Path(file).name == file and file.isprintable(), "a file elsewhere", repr(file))
    for name, each in found.tensors.items():
        demand(not fills(each.shape, [piece.box for piece in each.pieces]), "a hole", name)
    for value in map(decode, found.values.values()):
        with suppress(ValueError):  # of a number of more than 64 bits, which is read all the same
            demand(repr(decode(encode(value))) == repr(value), "a value that changes when kept")
    if _is_text(data.decode()):
        found.write(folder / "again")
        demand(Index.read(folder / "again") == found, "it reads otherwise when written again")


def _is_text(text: str) -> bool:
    """Whether UTF-8 can spell all names in it; JSON has an escape for half a surrogate too."""
    return "\\ud" not in text.lower()


def _index(**changes: object) -> bytes:
    whole = [[0, 0], [2, 3], "a.safetensors", "w"]
    top: dict[str, object] = {
        "format": "hardpoint.dcp",
        "version": 1,
        "serializer": "safetensors",
        "tensors": {"w": {"dtype": "float32", "shape": [2, 3], "chunks": [whole]}},
        "values": {"step": 3, "rate": {"float": "nan"}},
        "paths": {"w": ["model", 0, "w"]},
    }
    return json.dumps(top | changes).encode()


def _tensor(shape: object, *chunks: object, dtype: str = "float32") -> bytes:
    return _index(tensors={"w": {"dtype": dtype, "shape": shape, "chunks": list(chunks)}})


def seeds() -> Iterator[bytes]:
    yield _index()
    yield _index(tensors={}, values={}, paths={})
    yield _tensor([2, 3], [[0, 0], [1, 3], "a.x", "w"], [[1, 0], [1, 3], "b.x", "v"])
    yield _tensor([2, 3], [[0, 0], [1, 3], "a.x", "w"], [[0, 0], [1, 3], "b.x", "v"])
    yield _tensor([], [[], [], "a.x", "w"], dtype="bfloat16")
    yield _tensor([0, 4])
    yield _tensor([1 << 62, 1 << 62], dtype="int8")
    for file in ("../a", "/a", "", "..", "a/b", "c:a", "a\\b", "a\x1b[2J"):
        yield _tensor([1], [[0], [1], file, "w"])
    for value in ({"tuple": [1, {"tuple": []}]}, {"dict": [[1, "x"], ["1", [None, True]]]},
                  {"float": "-inf"}, {"dict": [[1, 1], [True, 2]]}, {"strange": 1}, 1 << 70):  # fmt: skip
        yield _index(values={"v": value})
    yield _index(version=2)
    yield _index(values={"w": 1})


def words() -> Iterator[bytes]:
    for text in ("format", "hardpoint.dcp", "version", "serializer", "tensors", "values", "paths",
                 "dtype", "shape", "chunks", "float32", "bfloat16", "float", "nan", "-inf", "tuple",
                 "dict", "a.safetensors", "w"):  # fmt: skip
        yield f'"{text}"'.encode()
    yield from (b"9223372036854775807", b"1e999", b"NaN", b"-1", b"null", b"true", b"[]", b"{}",
                b"\\u0000", b"\\ud800", b"../", b"[[[[[[[[")  # fmt: skip


TARGET = Target(run=run, seeds=seeds, prepare=prepare, words=words, longest=2048)
