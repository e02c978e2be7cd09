"""The pickle of an item of a distributed checkpoint, in an archive that is always right."""

from pathlib import Path

from target import Target
from wrapped import checkpoint, pickle_of

from targets import dcp_item
from targets._checkpoints import pickle_words
from targets._dcp_items import read_item


def run(data: bytes, folder: Path) -> None:
    read_item(int.from_bytes(data[:1], "little"), checkpoint(data[1:]), folder)


TARGET = Target(
    run=run,
    seeds=lambda: [seed[:1] + pickle_of(seed[1:]) for seed in dcp_item.seeds()],
    words=lambda: list(pickle_words()),
    longest=2048,
)
