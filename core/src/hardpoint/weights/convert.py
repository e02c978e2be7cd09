"""Saving, and converting one file into another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.weights.checksum import KEY, checksum as checksum_of
from hardpoint.weights.choose import open_named, writer_for
from hardpoint.weights.opened import Opened

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry

# Called with (bytes done, bytes in all, name of the tensor at hand). A serializer may go through
# the tensors more than once, to check and then to write: each time the count begins at 0 again.
Progress = Callable[[int, int, str], None]


def save_weights(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002 - the field's word
    metadata: Mapping[str, str] | None = None,
    checksum: bool = False,
) -> None:
    """Save atomically, with the serializer named or the one that ``path``'s suffix belongs to.

    :param checksum: add one of all tensors to the metadata; see :mod:`hardpoint.weights.checksum`.
    :raises WeightsError: no serializer writes such files, or it cannot hold a tensor.
    :raises ProviderError: the serializer named is missing or broken.
    """
    _, serializer = writer_for(path, registry, format)
    if checksum:
        metadata = {**(metadata or {}), KEY: checksum_of(tensors)}
    serializer.save(tensors, path, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What :func:`convert_weights` did.

    :param source_format: the serializer that read ``source``.
    :param format: the serializer that wrote ``destination``.
    :param nbytes: bytes of the tensors, as ``source`` holds them.
    """

    source: Path
    source_format: str
    destination: Path
    format: str
    tensors: int
    nbytes: int


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

    Tensors are fetched when the writer asks for them, so that no more than one need be in memory.

    :param to: the serializer that writes; by default the one of ``destination``'s suffix.
    :param force: replace ``destination`` if it exists.
    :raises WeightsError: ``destination`` exists, or either side's format does not serve.
    """
    if os.path.lexists(destination) and not force:
        raise WeightsError(
            f"{destination} exists",
            cause="converting replaces nothing unasked",
            remedy="choose another name, or force=True (--force)",
        )
    name, serializer = writer_for(destination, registry, to)
    opened = open_named(source, registry=registry)
    with opened.reader as reader:
        tensors = _Fetched(opened, progress)
        serializer.save(tensors, destination, metadata=reader.metadata)
    return ConvertReport(
        source=source,
        source_format=opened.name,
        destination=destination,
        format=name,
        tensors=len(tensors.sizes),
        nbytes=tensors.total,
    )


class _Fetched(Mapping[str, "torch.Tensor"]):
    """The tensors of a reader, each fetched when asked for and let go of by us at once."""

    def __init__(self, opened: Opened, progress: Progress | None) -> None:
        self.sizes = {name: info.nbytes for name, info in opened.reader.items()}
        self.total = sum(self.sizes.values())
        self._opened = opened
        self._progress = progress
        self._seen: set[str] = set()
        self._done = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._opened.tensor(name)
        if self._progress is not None:
            if name in self._seen:  # the next round
                self._seen.clear()
                self._done = 0
            self._seen.add(name)
            self._done += self.sizes[name]
            self._progress(self._done, self.total, name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self.sizes)

    def __len__(self) -> int:
        return len(self.sizes)
