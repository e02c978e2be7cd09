"""``*.safetensors.index.json``: which shard holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hardpoint import WeightsError
from hardpoint.storage.source import Source
from hardpoint_safetensors.header import METADATA
from hardpoint_safetensors.refuse import refuse, show
from hardpoint_safetensors.strict_json import loads

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"
_MAX_INDEX = 100_000_000
_MAX_TENSORS = 1 << 20
_MAX_SHARDS = 1 << 14
_FIELDS = frozenset({"metadata", "weight_map"})


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A parsed index.

    :param tensors_in: bare name of a file beside the index -> names of its tensors.
    :param shard_of: the same the other way round; shard by shard.
    :param metadata: the index's own; values that are not text are given as their JSON.
    """

    tensors_in: dict[str, list[str]]
    shard_of: dict[str, str]
    metadata: dict[str, str]

    @classmethod
    def read(cls, source: Source) -> ShardIndex:
        """Parse an index, opening none of the shards.

        :raises WeightsError: unreadable, not strict JSON, or it names files outside its directory.
        """
        path = source.name
        if source.size > _MAX_INDEX:
            raise _broken(path, f"it has more than {_MAX_INDEX} bytes")
        try:
            top = loads(source.read(0, source.size), floats=True)
        except ValueError as error:
            raise _broken(path, str(error)) from error
        if not isinstance(top, dict) or not {"weight_map"} <= top.keys() <= _FIELDS:
            has = sorted(top) if isinstance(top, dict) else top
            raise _broken(path, f"it needs 'weight_map', may have 'metadata', and has {show(has)}")
        metadata = top.get("metadata", {})
        if not isinstance(metadata, dict):
            raise _broken(path, f"its metadata is {show(metadata)}, not an object")
        try:
            texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()}
        except RecursionError as error:
            raise _broken(path, "its metadata is nested too deeply") from error
        tensors_in = _checked_map(top["weight_map"], path)
        shard_of = {name: shard for shard, names in tensors_in.items() for name in names}
        return cls(tensors_in, shard_of, texts)

    def check(self, shard: str, found: Iterable[str], path: str) -> None:
        """Hold a shard's own names against the index.

        :raises WeightsError: one has a tensor that the other does not know.
        """
        mapped, present = set(self.tensors_in[shard]), set(found)
        remedy = "get index and shards again, all from one place: they do not belong together"
        if mapped - present:
            what = f"tensor {show(min(mapped - present))} is not in {shard}"
            raise refuse(path, what, "the index maps it there", remedy)
        if present - mapped:
            what = f"tensor {show(min(present - mapped))} of {shard} is not in the index"
            raise refuse(path, what, "the index does not map it to that shard", remedy)


def candidates(directory: Path) -> list[Path]:
    """The indexes in ``directory``; the safetensors files where there is no index."""
    for suffix in (INDEX_SUFFIX, SUFFIX):
        found = sorted(path for path in directory.glob(f"*{suffix}") if path.name[0] != ".")
        if found:
            return found
    return []


def find_in_directory(directory: Path) -> Path:
    """The one index in ``directory``, else the one safetensors file.

    :raises WeightsError: there is none, or there are several, so that somebody must choose.
    """
    found = candidates(directory)
    if not found:
        raise refuse(
            directory,
            "the directory holds no safetensors file",
            f"neither *{SUFFIX} nor *{INDEX_SUFFIX} is in it",
            "name the file itself",
        )
    if len(found) > 1:
        raise refuse(
            directory,
            f"the directory holds {len(found)} safetensors files and no index to join them",
            ", ".join(show(path.name) for path in found[:5]) + (", ..." if found[5:] else ""),
            "name one of them instead of the directory",
        )
    return found[0]


def _broken(path: str, cause: str) -> WeightsError:
    return refuse(path, "the index is broken", cause)


def _checked_map(weight_map: object, path: str) -> dict[str, list[str]]:
    if not isinstance(weight_map, dict):
        raise _broken(path, f"its weight_map is {show(weight_map)}, not an object")
    if len(weight_map) > _MAX_TENSORS:
        raise _broken(path, f"it names {len(weight_map)} tensors; at most {_MAX_TENSORS} may be")
    by_shard: dict[str, list[str]] = {}
    for name, shard in weight_map.items():
        if name == METADATA:
            raise _broken(path, f"it maps {METADATA}, which is no tensor")
        if not isinstance(shard, str) or not _is_bare(shard):
            raise _broken(
                path,
                f"it maps tensor {show(name)} to {show(shard)}, "
                f"which is no *{SUFFIX} file right beside the index",
            )
        by_shard.setdefault(shard, []).append(name)
    if len(by_shard) > _MAX_SHARDS:
        raise _broken(path, f"it names {len(by_shard)} files; at most {_MAX_SHARDS} may be")
    return by_shard


def _is_bare(shard: str) -> bool:
    """No directory, drive or control character in it: it cannot leave the index's directory."""
    return (
        shard.endswith(SUFFIX)
        and shard != SUFFIX
        and shard.isprintable()
        and not any(mark in shard for mark in "/\\:")
    )
