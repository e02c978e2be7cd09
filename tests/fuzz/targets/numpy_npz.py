"""A ``.npz`` archive: the whole zip."""

from collections.abc import Iterator
from pathlib import Path

from invariants import read_file
from target import Target, files
from wrapped import archive, swapping_parts

from hardpoint_numpy.serializer import NumpySerializer

_SERIALIZER = NumpySerializer()


def run(data: bytes, folder: Path) -> None:
    path = folder / "some.npz"
    path.write_bytes(data)
    read_file(_SERIALIZER, path)


def seeds() -> Iterator[bytes]:
    yield from files("numpy", "golden/*.npz", "hostile/*.npz")
    [array, *_] = files("numpy", "golden/one.npy")
    yield archive({"a.npy": array, "b.npy": array}, packed=frozenset({"b.npy"}))
    yield archive({})


def words() -> list[bytes]:
    return [
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"PK\6\6",
        b"PK\6\7",
        b"PK\7\x08",
        b".npy",
        b"\1\0\x10\0",
        b"\xff" * 4,
    ]


TARGET = Target(run=run, seeds=seeds, mutate=swapping_parts, words=words)
