"""A signature file, and the statement in one, before anybody vouches for it."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from guard import watched
from invariants import demand, refusing
from target import Target

from hardpoint.weights.statement import PREDICATE, is_signature, parse

# JSON may be in any of these, and Python imports them when first used.
for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
    "".encode(name)


def run(data: bytes, folder: Path) -> None:
    payload = base64.b64encode(data).decode()
    for raw in (data, json.dumps({"dsseEnvelope": {"payload": payload}}).encode()):
        path = folder / "model.sig"
        path.write_bytes(raw)
        with watched(folder):
            demand(isinstance(is_signature(path), bool), "is_signature() is no bool")
            with refusing():
                _check(raw, path)


def _check(raw: bytes, path: Path) -> None:
    found = parse(raw, path)
    demand((found.method == "shards") == (found.piece > 0), "pieces of no size", found)
    for name in found.files:
        inside = name and ".." not in PurePosixPath(name).parts and name[0] != "/"
        demand(bool(inside) and "\0" not in name, "a file outside the directory", repr(name))


def _statement(method: str = "files", name: str = "model.safetensors", **how: object) -> bytes:
    serialization = {"method": method, "hash_type": "sha256", **how}
    resources = [{"name": name, "algorithm": "sha256", "digest": "00" * 32}]
    predicate = {"serialization": serialization, "resources": resources}
    return json.dumps({"predicateType": PREDICATE, "predicate": predicate}).encode()


def seeds() -> Iterator[bytes]:
    yield _statement()
    yield _statement(name=".", ignore_paths=[".git", "model.sig"])
    yield _statement("shards", "a/b.bin:0:8", shard_size=1000000000.0)
    for name in ("../x", "/x", "", "a/../b", "x\0y"):
        yield _statement(name=name)
    yield json.dumps({"dsseEnvelope": {"payload": "e30="}}).encode()


def words() -> Iterator[bytes]:
    for text in ("predicateType", "predicate", "serialization", "method", "files", "shards",
                 "hash_type", "blake2b", "shard_size", "ignore_paths", "resources", "name",
                 "digest", "dsseEnvelope", "payload", PREDICATE):  # fmt: skip
        yield f'"{text}"'.encode()
    yield from (b"1e999", b"NaN", b"-1", b"null", b"true", b"[]", b"{}", b"\\u0000", b"\\ud800")


TARGET = Target(run=run, seeds=seeds, words=words, longest=2048)
