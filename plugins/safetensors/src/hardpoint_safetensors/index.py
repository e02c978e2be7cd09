"""Directories of safetensors files, and the names that these have."""

from __future__ import annotations

from pathlib import Path

from hardpoint_safetensors.refuse import refuse, show

SUFFIX = ".safetensors"
INDEX_SUFFIX = ".safetensors.index.json"


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
