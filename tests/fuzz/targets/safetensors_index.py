"""The index of a sharded safetensors model, beside two shards."""

import json
from collections.abc import Iterator
from pathlib import Path

from invariants import read_file
from target import Target, files

from hardpoint_safetensors.dtypes import BY_CODE
from hardpoint_safetensors.header import Entry, encode_header
from hardpoint_safetensors.serializer import SafetensorsSerializer

_SERIALIZER = SafetensorsSerializer()
_SHARDS = {"a": "m-1.safetensors", "b": "m-2.safetensors"}


def prepare(folder: Path) -> None:
    for name, file in _SHARDS.items():
        header = encode_header([(name, Entry(BY_CODE["F32"], (2,), 0, 8))], {"from": name})
        (folder / file).write_bytes(header + bytes(range(8)))


def run(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors.index.json"
    path.write_bytes(data)
    read_file(_SERIALIZER, path)


def seeds() -> Iterator[bytes]:
    yield json.dumps({"weight_map": _SHARDS}).encode()
    yield json.dumps(
        {"metadata": {"total_size": 16, "n": [1.5, {}]}, "weight_map": _SHARDS}
    ).encode()
    for file in ("../x.safetensors", "/x.safetensors", "m-1.safetensors/", "m-3.safetensors", 3):
        yield json.dumps({"weight_map": {"a": file}}).encode()
    yield json.dumps({"weight_map": {"b": "m-1.safetensors"}}).encode()
    yield from files("safetensors", "golden/*.index.json")


def words() -> Iterator[bytes]:
    texts = ("weight_map", "metadata", "total_size", "__metadata__", *_SHARDS, *_SHARDS.values())
    yield from (f'"{text}"'.encode() for text in texts)
    yield from (b"\\u0061", b"\\ud800", b"1e999", b"NaN", b"Infinity", b"null", b"../", b"[[[[[[[[")


TARGET = Target(run=run, seeds=seeds, prepare=prepare, words=words, longest=1024)
