"""A fault that no seed is near: only guidance leads to it."""

from pathlib import Path

from planted_parser import guarded
from target import Target


def run(data: bytes, folder: Path) -> None:
    guarded(data)


TARGET = Target(run=run, seeds=lambda: [b"good"], longest=8)
