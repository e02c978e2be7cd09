"""The index of a sharded save: which chunk of which tensor is in which file. JSON, written last."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hardpoint.bridges.dcp_values import decode
from hardpoint.errors import WeightsError
from hardpoint.package.refusal import MalformedError
from hardpoint.package.strict_json import canonical, parse
from hardpoint.storage import atomic
from hardpoint.storage.boxes import Box, fills
from hardpoint.storage.refusal import DAMAGED, show

NAME = "hardpoint.dcp.json"
_FORMAT, _VERSION = "hardpoint.dcp", 1
_MAX_BYTES = 256 << 20
_MAX_SIZE = (1 << 63) - 1
_MAX_RANK = 64
_FIELDS = {"format", "version", "serializer", "tensors", "values", "paths"}


class _BrokenError(ValueError):
    """The index does not hold together."""


class Piece(NamedTuple):
    """A chunk of a tensor: the tensor ``key`` of ``file``, a bare name beside the index."""

    box: Box
    file: str
    key: str


@dataclass(frozen=True, slots=True)
class Sharded:
    """One tensor; its pieces fill the shape exactly."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """A whole save.

    :param serializer: that wrote the files; ``None``: whichever recognizes them.
    :param values: those that are no tensors, as :func:`.dcp_values.encode` gives them.
    :param paths: where in nested dicts and lists each name belongs, where that is not the name.
    """

    serializer: str | None
    tensors: Mapping[str, Sharded]
    values: Mapping[str, Any] = field(default_factory=dict)
    paths: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        """Every file that it names."""
        return {piece.file for each in self.tensors.values() for piece in each.pieces}

    def write(self, folder: Path) -> None:
        """Write it atomically; the save is whole from then on.

        :raises OSError: it cannot be written; the one before still stands.
        """
        tensors = {
            name: {
                "dtype": each.dtype,
                "shape": each.shape,
                "chunks": [[*piece.box, piece.file, piece.key] for piece in each.pieces],
            }
            for name, each in self.tensors.items()
        }
        text = canonical(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "serializer": self.serializer,
                "tensors": tensors,
                "values": self.values,
                "paths": self.paths,
            }
        )
        atomic.replace(folder / NAME, len(text), lambda write: write(memoryview(text)))

    @classmethod
    def read(cls, folder: Path) -> Index:
        """The index in ``folder``; none of the files is opened.

        :raises WeightsError: it cannot be read, or does not hold together.
        """
        path = folder / NAME
        try:
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
            return _index(parse(data, what="the index", max_bytes=_MAX_BYTES))
        except OSError as error:
            raise WeightsError(
                f"{path}: the index cannot be read", cause=str(error), remedy="check the path"
            ) from error
        except (MalformedError, ValueError) as error:
            raise WeightsError(
                f"{path}: the index is broken", cause=str(error), remedy=DAMAGED
            ) from error


def _index(top: Any) -> Index:
    if not isinstance(top, dict) or top.keys() != _FIELDS or top["format"] != _FORMAT:
        raise _BrokenError(f"it is no {_FORMAT} with exactly {sorted(_FIELDS)}")
    if top["version"] != _VERSION:
        raise _BrokenError(
            f"its version is {show(top['version'])}; this hardpoint knows {_VERSION}"
        )
    tensors, values, paths = (top[key] for key in ("tensors", "values", "paths"))
    serializer = top["serializer"]
    if not all(isinstance(each, dict) for each in (tensors, values, paths)):
        raise _BrokenError("its tensors, values or paths are no objects")
    if not isinstance(serializer, str):
        raise _BrokenError("it does not name the serializer")
    if tensors.keys() & values.keys():
        raise _BrokenError("it has a tensor and a value of one name")
    for value in values.values():
        decode(value)
    return Index(
        serializer=serializer,
        tensors={name: _sharded(name, each) for name, each in tensors.items()},
        values=values,
        paths={name: _path(path) for name, path in paths.items()},
    )


def _sharded(name: str, entry: Any) -> Sharded:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "chunks"}:
        raise _BrokenError(f"tensor {show(name)} needs exactly a dtype, a shape and chunks")
    dtype, shape = entry["dtype"], _sizes(entry["shape"])
    if not isinstance(dtype, str) or type(getattr(torch, dtype, None)) is not torch.dtype:
        raise _BrokenError(f"tensor {show(name)} has dtype {show(dtype)}, which is none")
    if math.prod(size or 1 for size in shape) * 16 > _MAX_SIZE:
        raise _BrokenError(f"tensor {show(name)} of shape {show(shape)} is larger than any memory")
    if not isinstance(entry["chunks"], list):
        raise _BrokenError(f"the chunks of {show(name)} are no list")
    pieces = tuple(_piece(name, each) for each in entry["chunks"])
    wrong = fills(shape, [piece.box for piece in pieces])
    if wrong:
        raise _BrokenError(f"tensor {show(name)}: {wrong}")
    return Sharded(dtype, shape, pieces)


def _piece(name: str, entry: Any) -> Piece:
    if not isinstance(entry, list) or len(entry) != 4:
        raise _BrokenError(f"a chunk of {show(name)} is not made of four things")
    offsets, sizes, file, key = entry
    if not isinstance(file, str) or not _is_bare(file) or not isinstance(key, str):
        raise _BrokenError(
            f"a chunk of {show(name)} is said to be in {show(file)}, which is no file right beside"
        )
    return Piece(Box(_sizes(offsets), _sizes(sizes)), file, key)


def _is_bare(file: str) -> bool:
    """No directory, drive or control character in it: it cannot leave the index's directory."""
    return (
        file not in ("", ".", "..")
        and file.isprintable()
        and not any(mark in file for mark in "/\\:")
    )


def _sizes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > _MAX_RANK:
        raise _BrokenError(f"{show(value)} are no sizes")
    if not all(type(size) is int and 0 <= size <= _MAX_SIZE for size in value):
        raise _BrokenError(f"{show(value)} are no sizes")
    return tuple(value)


def _path(value: Any) -> tuple[str | int, ...]:
    if not isinstance(value, list) or not all(type(part) in (str, int) for part in value):
        raise _BrokenError(f"{show(value)} is no path")
    return tuple(value)
