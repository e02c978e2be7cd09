"""The record of where tensors came from, in the metadata of a file that anybody may have written."""

import json
from collections.abc import Iterator
from pathlib import Path

from guard import watched
from invariants import demand
from target import Target

from hardpoint.weights.opened import Opened
from hardpoint.weights.provenance import KEY, Work, read_record, record_of, told, without_records
from hardpoint_safetensors.header import encode_header
from hardpoint_safetensors.serializer import SafetensorsSerializer

_SERIALIZER = SafetensorsSerializer()
# Between the records of a set of shards.
_BETWEEN = b"\0\0"
_MOST_CHARACTERS = 16_000
_MOST_LINES = 101


def run(data: bytes, folder: Path) -> None:
    texts = [part.decode("utf-8", "replace") for part in data.split(_BETWEEN)[:3]]
    metadata = {f"{'s' * at}{':' * bool(at)}{KEY}": text for at, text in enumerate(texts)}
    path = folder / "model.safetensors"
    path.write_bytes(encode_header([], metadata | {"kept": "yes"}))
    with watched(folder):
        demand(without_records(metadata | {"kept": "yes"}) == {"kept": "yes"}, "a record is kept")
        _shown(read_record(metadata))
        with _SERIALIZER.open(path) as reader:
            opened = Opened("safetensors", "fuzzed", reader)
            sources = [(path, opened)] * 2
            work = Work(operation="merge", arguments={"of": texts[0][:99]}, hashed=False)
            made = record_of(work, sources, ("safetensors", "fuzzed"))
    # What is made of it is a record like any other, for ever.
    demand(len(made) <= _MOST_CHARACTERS, "a record that is too long", len(made))
    found = read_record({KEY: made})
    demand(found is not None, "a record of ours that is none", made[:200])
    _shown(found)


def _shown(record: dict[str, object] | None) -> None:
    if record is None:
        return
    lines = told(record)
    demand(len(lines) <= _MOST_LINES, "a record that fills more than a screen", len(lines))
    demand(all(line.isprintable() for line in lines), "a line that is not printable")


def _record(**changes: object) -> bytes:
    file = {"name": "a.safetensors", "bytes": 8, "sha256": "00" * 32}
    source = {
        "name": "a.safetensors",
        "format": "safetensors",
        "read_by": "hardpoint-safetensors 0.1.0",
        "files": [file],
    }
    record: dict[str, object] = {
        "operation": "convert",
        "arguments": {"shard_size": 5},
        "by": "hardpoint 0.1.0",
        "format": "numpy",
        "written_by": "hardpoint-numpy 0.1.0",
        "sources": [source],
    }
    return json.dumps(record | changes).encode()


def seeds() -> Iterator[bytes]:
    plain = json.loads(_record())
    nested = plain
    for _ in range(10):
        nested = {**plain, "sources": [{**plain["sources"][0], "from": nested}]}
    yield _record()
    yield json.dumps(nested).encode()
    yield _BETWEEN.join([_record(), _record(operation="slice"), b"{}"])
    yield _record(sources={"count": 70, "bytes": 9, "sha256sum": "00" * 32})
    yield _record(sources=[{"files": "x", "from": [[[]], 3, {"operation": "\x1b[2J"}]}])
    yield _record(sources=[3, [], {"files": [None, []]}])
    yield b'{"sources": ' + b"[" * 70 + b"]" * 70 + b"}"
    yield from (b"", b"[]", b"null", b'{"operation": NaN}', b'{"operation": "\\ud800"}')


def words() -> Iterator[bytes]:
    for text in ("operation", "arguments", "by", "written_by", "sources", "name", "format", "from",
                 "read_by", "files", "bytes", "sha256", "sha256sum", "count"):  # fmt: skip
        yield f'"{text}"'.encode()
    yield from (_BETWEEN, b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b"\\u001b", b"\\ud800",
                b"[[[[[[[[", b'{"from":{"sources":[')  # fmt: skip


TARGET = Target(run=run, seeds=seeds, words=words, longest=8192)
