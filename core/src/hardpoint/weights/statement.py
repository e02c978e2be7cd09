"""What a signature file says that was signed, read before anybody vouches for it.

The file is a Sigstore bundle: JSON, with an in-toto statement (JSON in base64) that lists files and
their digests. What stands here only chooses how to hash; whether the statement was signed, and
whether the files are those, model-signing decides over the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hardpoint.errors import WeightsError, WeightsMismatch
from hardpoint.storage.refusal import show

PREDICATE = "https://model_signing/signature/v1.0"
# A line a file: a hundred thousand of them.
MAX_SIGNATURE = 32 << 20
_METHODS = ("files", "shards")
_HASHES = {"sha256": "sha256", "blake2b": "blake2", "blake3": "blake3"}
_ITSELF = "."


@dataclass(frozen=True, slots=True)
class Statement:
    """What was signed.

    :param method: ``"files"``, or ``"shards"`` (digests of equal pieces of files).
    :param hash_type: in model-signing's words: ``"sha256"``, ``"blake2"``, ``"blake3"``.
    :param piece: bytes of a piece; 0 with ``"files"``.
    :param ignored: paths below the directory that the signature leaves out.
    :param digests: what was hashed -> hexadecimal digest. A file by its path below the directory,
        ``"."`` if it was signed alone; a piece as ``FILE:BEGIN:END``.
    """

    method: str
    hash_type: str
    piece: int
    ignored: tuple[str, ...]
    digests: Mapping[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files, each once."""
        names = self.digests if self.method == "files" else map(file_of, self.digests)
        return tuple(dict.fromkeys(names))

    @property
    def alone(self) -> bool:
        """Whether it is of one file, whatever its name."""
        return self.files == (_ITSELF,)


def file_of(piece: str) -> str:
    """The file of ``FILE:BEGIN:END``."""
    return piece.rsplit(":", 2)[0]


def read_signature(path: Path) -> bytes:
    """The bytes of a signature file.

    :raises WeightsError: it is not there, cannot be read, or is longer than any signature.
    """
    try:
        # A pipe might never answer.
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        with path.open("rb") as file:
            raw = file.read(MAX_SIGNATURE + 1)
    except OSError as error:
        raise WeightsError(
            f"the signature {path} cannot be read",
            cause=error.strerror or str(error),
            remedy="name the file that `hardpoint weights sign` wrote, with --signature",
        ) from error
    if len(raw) > MAX_SIGNATURE:
        raise damaged(path, f"it has more than {MAX_SIGNATURE} bytes")
    return raw


def parse(raw: bytes, path: Path) -> Statement:
    """What the signature file says, believed by nobody yet.

    :raises WeightsMismatch: it is no signature of files, or a damaged one.
    """
    try:
        payload = json.loads(raw)["dsseEnvelope"]["payload"]
        statement = json.loads(base64.b64decode(payload, validate=True))
        kind = statement["predicateType"]
        if kind != PREDICATE:
            raise damaged(path, f"it states {show(kind)}, and what we know is {PREDICATE}")
        return _statement(statement["predicate"])
    except (LookupError, TypeError, AttributeError) as error:
        raise damaged(path, f"it lacks a part, or has another kind of it: {show(error)}") from error
    # RecursionError: JSON that is nested too deeply. OverflowError: 1e999, which JSON may say.
    except (ValueError, OverflowError, binascii.Error, RecursionError) as error:
        raise damaged(path, show(str(error))[1:-1]) from error


def is_signature(path: Path) -> bool:
    """Whether a file is one of signatures, sound or not: JSON with an envelope."""
    try:
        top = json.loads(read_signature(path))
    except (WeightsError, ValueError, RecursionError):
        return False
    return isinstance(top, dict) and "dsseEnvelope" in top


def damaged(path: Path, cause: str) -> WeightsMismatch:
    """The error for a file that is no signature, or not whole."""
    return WeightsMismatch(
        f"{path} is no whole signature of files",
        cause=cause,
        remedy="get the signature again from whoever signed",
    )


def _statement(predicate: Any) -> Statement:
    how = predicate["serialization"]
    method, named = how["method"], str(how["hash_type"]).split("-")[0]
    if method not in _METHODS or named not in _HASHES:
        raise ValueError(f"it was hashed by method {method!r} with {named!r}")
    # Numbers of JSON made by protobuf are floats.
    piece = int(how["shard_size"]) if method == "shards" else 0
    if method == "shards" and piece < 1:
        raise ValueError(f"it was hashed in pieces of {piece} bytes")
    digests: dict[str, str] = {}
    for resource in predicate["resources"]:
        name, digest = resource["name"], resource["digest"]
        if not isinstance(name, str) or not isinstance(digest, str):
            raise TypeError("a name or digest that is no text")
        if name in digests:
            raise ValueError(f"it lists {name!r} twice")
        _check_inside(name if method == "files" else file_of(name))
        digests[name] = digest
    if not digests:
        raise ValueError("it lists no file")
    ignored = how.get("ignore_paths", [])
    return Statement(method, _HASHES[named], piece, tuple(map(str, ignored)), digests)


def _check_inside(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not name or "\0" in name:
        raise ValueError(f"it lists {name!r}, which is in no directory of weights")
