"""Load, save and convert weights, over whichever serializer fits the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from hardpoint.errors import HardpointError, ProviderFailed, WeightsError, did_you_mean
from hardpoint.interfaces.serializer import Reader, Serializer

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Called with (bytes done, bytes in all, tensor being written).
Progress = Callable[[int, int, str], None]
_ZIP, _PICKLE, _GGUF = b"PK\x03\x04", b"\x80", b"GGUF"


def open_weights(
    path: Path,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002 - the field's word
    device: str = "cpu",
) -> Reader:
    """Open ``path`` with the serializer that recognizes its content, or the one named.

    :raises WeightsError: no such file, no serializer knows it, or it is damaged or hostile.
    """
    if not path.exists():
        raise WeightsError(f"there is no file {path}", remedy="check the path")
    if format is not None:
        return registry.open("serializer", format).open(path, device=device)
    tried = _by_suffix(path, registry)
    for name in tried:
        serializer = registry.open("serializer", name)
        if _recognizes(serializer, name, path, registry):
            return serializer.open(path, device=device)
    raise WeightsError(
        f"no installed serializer reads {path}",
        cause=f"it holds {describe_content(path)}; tried: {', '.join(tried) or 'none'}",
        remedy=_remedy(path),
    )


def load_weights(
    path: Path,
    *,
    registry: Registry,
    mode: Literal["map", "own"] = "map",
    into: torch.nn.Module | None = None,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002
    strict: bool = True,
) -> Mapping[str, torch.Tensor]:
    """All tensors of a file, by name.

    :param mode: ``"map"``: views of the mapped file where the format allows; ``"own"``: copies in
        private memory, safe against a file that changes.
    :param into: a module to fill, after every name, shape and dtype was checked: it is filled
        whole or not at all. Its tensors are returned.
    :param strict: with ``into``: names must be the same on both sides.
    :raises WeightsError: a bad file, or tensors that do not fit ``into``.
    """
    if mode not in ("map", "own"):
        raise WeightsError(f"{mode!r} is no mode", remedy=did_you_mean(mode, ("map", "own")))
    with open_weights(path, registry=registry, format=format, device=device) as reader:
        if into is not None:
            return _fill(into, reader, path, strict)
        tensors = {name: reader.tensor(name) for name in reader}
        return tensors if mode == "map" else {n: t.clone() for n, t in tensors.items()}


def save_weights(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save atomically, with the serializer named or the one that ``path``'s suffix belongs to.

    :raises WeightsError: no serializer writes such files, or it cannot hold a tensor.
    """
    name = format or _writer_for(path, registry)
    registry.open("serializer", name).save(tensors, path, metadata=metadata)


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What :func:`convert_weights` did: bytes are of the tensors' data."""

    source: Path
    destination: Path
    format: str
    tensors: int
    nbytes: int


class _Watched(Mapping[str, torch.Tensor]):
    """Tensors of a reader, fetched one at a time and counted as they go."""

    def __init__(self, reader: Reader, progress: Progress | None) -> None:
        self._reader, self._progress = reader, progress
        self._total = sum(info.nbytes for info in reader.values())
        self._seen: dict[str, int] = {}

    def __getitem__(self, name: str) -> torch.Tensor:
        self._seen[name] = self._reader[name].nbytes
        if self._progress:
            self._progress(sum(self._seen.values()), self._total, name)
        return self._reader.tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._reader)

    def __len__(self) -> int:
        return len(self._reader)


def convert_weights(
    source: Path,
    destination: Path,
    *,
    registry: Registry,
    to: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write the tensors and metadata of ``source`` in another format, atomically.

    :param to: the serializer that writes; by default the one of ``destination``'s suffix.
    :param force: replace ``destination`` if it exists.
    :raises WeightsError: ``destination`` exists, or either side's format does not serve.
    """
    if destination.exists() and not force:
        raise WeightsError(
            f"{destination} exists", remedy="choose another name, or force=True (--force)"
        )
    name = to or _writer_for(destination, registry)
    with open_weights(source, registry=registry) as reader:
        tensors = _Watched(reader, progress)
        metadata = dict(reader.metadata)
        registry.open("serializer", name).save(tensors, destination, metadata=metadata)
        total = sum(info.nbytes for info in reader.values())
        return ConvertReport(source, destination, name, len(reader), total)


def describe_content(path: Path) -> str:
    """What a file seems to hold, in words, from its first bytes."""
    if path.is_dir():
        return "a directory"
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "nothing: it is empty"
    for start, words in (
        (_ZIP, "a zip archive, as torch.save writes"),
        (_PICKLE, "a pickle, which can run code"),
        (_GGUF, "GGUF"),
    ):
        if head.startswith(start):
            return words
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON"
    return f"unknown data that begins with {head[:8].hex(' ')}"


def _remedy(path: Path) -> str:
    words = describe_content(path)
    if "torch.save" in words or "pickle" in words:
        return "install hardpoint-checkpoint, which reads them without running anything"
    if words == "GGUF":
        return "install hardpoint-gguf"
    return "check the file, or install the serializer of its format (`hardpoint list`)"


def _by_suffix(path: Path, registry: Registry) -> list[str]:
    """Usable serializers, those that claim the file's suffix first."""
    names = [name for name, _ in registry.available("serializer").ready]

    def rank(name: str) -> tuple[bool, str]:
        suffixes = registry.info("serializer", name).suffixes
        return (not path.name.endswith(suffixes), name)

    return sorted(names, key=rank)


def _recognizes(serializer: Serializer, name: str, path: Path, registry: Registry) -> bool:
    try:
        return serializer.recognizes(path)
    except HardpointError:
        raise
    except Exception as error:
        raise ProviderFailed(
            f"a serializer failed while looking at {path}",
            provider=f"serializer:{name}",
            origin=registry.record("serializer", name).origin,
            cause=f"{type(error).__name__}: {error}",
            remedy="name the right one with format=, and report it to the plugin's author",
        ) from error


def _writer_for(path: Path, registry: Registry) -> str:
    """The serializer that writes files of this suffix."""
    writers = {}
    for name, _ in registry.available("serializer").ready:
        info = registry.info("serializer", name)
        if info.can_save:
            writers[name] = info.suffixes
            if path.name.endswith(info.suffixes):
                return name
    known = [suffix for suffixes in writers.values() for suffix in suffixes]
    raise WeightsError(
        f"no installed serializer writes {path.suffix or 'files without a suffix'} ({path.name})",
        cause=f"known suffixes: {json.dumps(known)}",
        remedy=f"use one of them, or name the serializer with format= ({', '.join(writers)})",
    )


def _fill(
    module: torch.nn.Module, reader: Reader, path: Path, strict: bool
) -> Mapping[str, torch.Tensor]:
    """Check everything, then copy; tied parameters are copied once."""
    own = module.state_dict(keep_vars=True)
    missing, unknown = own.keys() - reader.keys(), reader.keys() - own.keys()
    if strict and (missing or unknown):
        parts = [f"missing: {_some(missing)}"] * bool(missing)
        parts += [f"not in the module: {_some(unknown)}"] * bool(unknown)
        raise WeightsError(
            f"{path} does not fit {type(module).__name__}",
            cause="; ".join(parts),
            remedy="load the right checkpoint, or pass strict=False",
        )
    shared = [name for name in own if name in reader]
    for name in shared:
        mine, theirs = own[name], reader[name]
        dtype = str(mine.dtype).removeprefix("torch.")
        if tuple(mine.shape) != theirs.shape or dtype != theirs.dtype:
            raise WeightsError(
                f"{path} does not fit {type(module).__name__}",
                cause=f"{name} is {theirs.dtype}{list(theirs.shape)} in the file, "
                f"{dtype}{list(mine.shape)} in the module",
                remedy="load the right checkpoint; nothing was changed",
            )
        if mine.is_meta:
            raise WeightsError(
                f"{name} of {type(module).__name__} is on the meta device",
                remedy="use module.load_state_dict(load_weights(path), assign=True)",
            )
    with torch.no_grad():
        filled: dict[int, str] = {}
        for name in shared:
            if id(own[name]) not in filled:
                filled[id(own[name])] = name
                own[name].copy_(reader.tensor(name))
    return {name: own[name] for name in shared}


def _some(names: set[str], most: int = 4) -> str:
    shown = sorted(names)[:most]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown) + more
