"""The parser that is wrong on purpose, for the tests of the fuzzer itself."""

from pathlib import Path

from guard import watched
from invariants import read_with
from planted_parser import open_planted
from target import Target


def run(data: bytes, folder: Path) -> None:
    path = folder / "planted"
    path.write_bytes(data)
    with watched(folder):
        read_with(lambda: open_planted(path), folder)


TARGET = Target(run=run, seeds=lambda: [b"good1234"], longest=12)
