"""A checkpoint of today: the whole zip archive."""

from pathlib import Path

from target import Target, files
from wrapped import swapping_parts

from targets._checkpoints import pickle_words, read_checkpoint


def run(data: bytes, folder: Path) -> None:
    read_checkpoint(data, folder / "model.pt")


def seeds() -> list[bytes]:
    found = files("checkpoint", "golden/*.pt", "golden/*.bin", "hostile/*.pt")
    return [data for data in found if data.startswith(b"PK")]


def words() -> list[bytes]:
    return [
        *pickle_words(),
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"PK\6\6",
        b"PK\6\7",
        b"data.pkl",
        b"\xff" * 4,
    ]


TARGET = Target(run=run, seeds=seeds, mutate=swapping_parts, words=words)
