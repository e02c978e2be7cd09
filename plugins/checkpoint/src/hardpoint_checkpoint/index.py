"""``pytorch_model.bin.index.json``: sharded checkpoints, and directories that hold one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from hardpoint import Reader
from hardpoint.storage.shards import ShardedReader, Sharding
from hardpoint.storage.source import Source
from hardpoint_checkpoint.refuse import refuse, show

INDEX_SUFFIX = ".bin.index.json"
_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
_IN_DIRECTORY = ("pytorch_model.bin.index.json", "pytorch_model.bin")


def open_index(
    source: Source, device: torch.device, open_file: Callable[[Source, torch.device], Reader]
) -> ShardedReader:
    """The files that an index names, as one.

    :raises WeightsError: the index is refused.
    """
    return ShardedReader(source, device, Sharding(refuse, _SUFFIXES, _parse, open_file))


def in_directory(directory: Path) -> Path | None:
    """The index or the one file in a model's directory; none where it has safetensors files."""
    if any(directory.glob("*.safetensors")):
        return None
    found = (directory / name for name in _IN_DIRECTORY)
    return next((path for path in found if path.is_file()), None)


def find_in_directory(directory: Path) -> Path:
    """As :func:`in_directory`.

    :raises WeightsError: there is none.
    """
    found = in_directory(directory)
    if found is None:
        raise refuse(
            directory,
            "the directory holds no checkpoint of a model",
            f"neither {' nor '.join(_IN_DIRECTORY)} is in it, or safetensors files are too",
            "name the file itself",
        )
    return found


def _parse(raw: bytes) -> object:
    """Strict JSON.

    :raises ValueError: it is not; the message says why.
    """
    try:
        value: object = json.loads(
            raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (at character {error.pos})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made: dict[str, object] = {}
    for key, value in pairs:
        if key in made:
            raise ValueError(f"the key {show(key)} stands there twice")
        made[key] = value
    return made


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
