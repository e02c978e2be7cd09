"""The index of a sharded checkpoint, beside its two shards."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from target import PLUGINS, Target, files

from targets._checkpoints import read_checkpoint
from targets.safetensors_index import words as json_words

_GOLDEN = PLUGINS / "checkpoint/tests/golden"
_SHARDS = sorted(path.name for path in _GOLDEN.glob("*.bin"))


def prepare(folder: Path) -> None:
    for name in _SHARDS:
        shutil.copy(_GOLDEN / name, folder / name)


def run(data: bytes, folder: Path) -> None:
    read_checkpoint(data, folder / "pytorch_model.bin.index.json")


def seeds() -> Iterator[bytes]:
    yield from files("checkpoint", "golden/*.index.json")
    for file in ("../x.bin", "/x.bin", "x.safetensors", _SHARDS[1], "\ud800.bin", None):
        yield json.dumps({"weight_map": {"layers.0.weight": file}}).encode()


def words() -> Iterator[bytes]:
    yield from json_words()
    yield from (f'"{name}"'.encode() for name in (*_SHARDS, "layers.0.weight", "layers.1.weight"))


TARGET = Target(run=run, seeds=seeds, prepare=prepare, words=words, longest=1024)
