"""One set of tensors in several files with an index, as Hugging Face's libraries write and read it.

The files and the index are made in a hidden directory beside the one that was asked for, which then
takes its name: at every moment the whole old set is there, or the whole new one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.weights.checksum import KEY as CHECKSUM
from hardpoint.weights.choose import writer_for
from hardpoint.weights.content import some
from hardpoint.weights.progress import Counted, Progress

if TYPE_CHECKING:
    import torch

    from hardpoint.interfaces.serializer import Serializer
    from hardpoint.registry.registry import Registry

# What `transformers` looks for; `diffusers` wants "diffusion_pytorch_model".
STEM = "model"
_INDEX = ".index.json"
_SHARD = re.compile(r"(.+)-[0-9]{5}-of-[0-9]{5}(\..+)")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_MOST = 99_999  # five digits
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def shard_size(text: str) -> int:
    """Bytes, from e.g. ``5GB``, ``500MB`` or ``2GiB``.

    :raises WeightsError: it is no size, or none of a byte and more.
    """
    found = re.fullmatch(r"([0-9]{1,15})\s*([A-Za-z]{0,3})", text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    if not found or not unit or not int(found[1]):
        raise WeightsError(
            f"{text!r} is no size",
            cause="a size is a whole number and a unit",
            remedy="write e.g. 5GB, 500MB or 2GiB",
        )
    return int(found[1]) * unit


def shard_writer_for(
    path: Path, registry: Registry, name: str | None, stem: str
) -> tuple[str, Serializer]:
    """The serializer that writes the files of a set, if ``path`` may become its directory.

    :param stem: what the names of the files begin with.
    :raises WeightsError: ``stem`` cannot begin a name, the format has no sets, or ``path`` holds
        other things than a set.
    """
    if not _NAME.fullmatch(stem):
        raise WeightsError(
            f"files cannot be called {stem!r}",
            cause="the name is one of letters, digits, and _ . - within",
            remedy=f"leave it out ({STEM}), or say e.g. diffusion_pytorch_model",
        )
    if name is None:
        sets = [
            each
            for each, _ in registry.available("serializer").ready
            if (info := registry.info("serializer", each)).can_save and set_suffix(info.suffixes)
        ]
        if len(sets) != 1:
            raise WeightsError(
                "no installed serializer writes sets of files"
                if not sets
                else f"several serializers write sets of files: {', '.join(sets)}",
                remedy="install hardpoint-safetensors" if not sets else "say which, with to=",
            )
        name = sets[0]
    name, serializer = writer_for(path, registry, name)
    suffix = set_suffix(registry.info("serializer", name).suffixes)
    if not suffix:
        raise WeightsError(
            f"{name} writes no sets of files",
            provider=f"serializer:{name}",
            origin=registry.record("serializer", name).origin,
            cause="its format has no index of shards",
            remedy="leave out the shard size, or write safetensors",
        )
    check_directory(path, stem, suffix)
    return name, serializer


def check_directory(path: Path, stem: str, suffix: str) -> None:
    """Whether a set may take the place of what ``path`` is now.

    :raises WeightsError: it is a file or a link, or holds other things than a set.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise WeightsError(
            f"{path} cannot become a directory of shards",
            cause="a file or a link has that name",
            remedy="choose another name",
        )
    others = [
        each.name
        for each in (path.iterdir() if path.is_dir() else ())
        if not _is_ours(each, stem, suffix)
    ]
    if others:
        raise WeightsError(
            f"{path} is not replaced",
            cause=f"it holds other things than a set of shards: {some(others)}",
            remedy="choose another name, or move them away",
        )


def save_sharded(
    registry: Registry,
    writer: tuple[str, Serializer],
    path: Path,
    fetch: Callable[[str], torch.Tensor],
    sizes: Mapping[str, int],
    metadata: Mapping[str, str],
    most: int,
    stem: str,
    progress: Progress | None,
) -> tuple[Path, ...]:
    """Write ``STEM-00001-of-0000N`` and so on, then the index; all at once become ``path``.

    Tensors stay in their order; a tensor larger than ``most`` has a file of its own.

    :param most: bytes of tensors in one file.
    :returns: the files, the index last.
    :raises WeightsError: a tensor that the format cannot hold, or a failed write.
    """
    from hardpoint.storage import atomic, directory

    name, serializer = writer
    suffix = set_suffix(registry.info("serializer", name).suffixes)
    shards, total = plan(sizes, most), sum(sizes.values())
    files = [f"{stem}-{at:05}-of-{len(shards):05}{suffix}" for at in range(1, len(shards) + 1)]
    index = _index(dict(zip(files, shards, strict=True)), total, metadata)
    # The checksum is of all tensors: it belongs to the index.
    texts = {key: value for key, value in metadata.items() if key != CHECKSUM}

    def fill(made: Path) -> None:
        done = 0
        for file, names in zip(files, shards, strict=True):
            mine = {each: sizes[each] for each in names}
            serializer.save(
                Counted(fetch, mine, _later(progress, done, total)), made / file, metadata=texts
            )
            done += sum(mine.values())
        atomic.replace(
            made / _index_name(stem, suffix), len(index), lambda write: write(memoryview(index))
        )

    try:
        directory.replace(path, fill)
    except OSError as error:
        raise WeightsError(
            f"{path}: the set of files cannot be written",
            cause=str(error),
            remedy="check the directory, its permissions and the free space; what was there is"
            " unchanged",
        ) from error
    return tuple(path / each for each in (*files, _index_name(stem, suffix)))


def plan(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names of the tensors of each file; one file at least.

    :raises WeightsError: that would be too many files.
    """
    shards: list[list[str]] = [[]]
    room = most
    for name, size in sizes.items():
        if size > room and shards[-1]:
            shards.append([])
            room = most
        shards[-1].append(name)
        room -= size
    if len(shards) > _MOST:
        raise WeightsError(
            f"{most} bytes a file make {len(shards)} files",
            cause=f"at most {_MOST} have names",
            remedy="choose a larger size",
        )
    return shards


def _index(shards: Mapping[str, list[str]], total: int, metadata: Mapping[str, str]) -> bytes:
    weight_map = {name: file for file, names in shards.items() for name in names}
    top = {
        # The size last: a source may have said another.
        "metadata": {**dict(sorted(metadata.items())), "total_size": total},
        "weight_map": dict(sorted(weight_map.items())),
    }
    return (json.dumps(top, indent=2) + "\n").encode("ascii")


def _later(progress: Progress | None, done: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda more, _, name: progress(done + more, total, name)


def set_suffix(suffixes: tuple[str, ...]) -> str:
    """Of the files of a set, if the format has an index of them; else ``""``."""
    found = [suffix.removesuffix(_INDEX) for suffix in suffixes if suffix.endswith(_INDEX)]
    return found[0] if found else ""


def _index_name(stem: str, suffix: str) -> str:
    return f"{stem}{suffix}{_INDEX}"


def _is_ours(path: Path, stem: str, suffix: str) -> bool:
    """Whether a file is of a set that we would write here."""
    found = _SHARD.fullmatch(path.name)
    named = path.name == _index_name(stem, suffix) or (
        found is not None and found.groups() == (stem, suffix)
    )
    return named and path.is_file() and not path.is_symlink()
