"""Saving, and converting one file into another."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.weights.checksum import KEY, checksum as checksum_of
from hardpoint.weights.choose import open_named, writer_for
from hardpoint.weights.progress import Counted, Progress, bar

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry


def save_weights(
    tensors: Mapping[str, torch.Tensor],
    path: Path,
    *,
    registry: Registry,
    format: str | None = None,  # noqa: A002 - the field's word
    metadata: Mapping[str, str] | None = None,
    checksum: bool = False,
    progress: bool | None = None,
) -> None:
    """Save atomically, with the serializer named or the one that ``path``'s suffix belongs to.

    :param checksum: add one of all tensors to the metadata; see :mod:`hardpoint.weights.checksum`.
    :param progress: whether to show a bar on stderr; ``None``: if that is a terminal.
    :raises WeightsError: no serializer writes such files, or it cannot hold a tensor.
    :raises ProviderError: the serializer named is missing or broken.
    """
    _, serializer = writer_for(path, registry, format)
    with bar(f"saving {len(tensors)} tensors", wanted=progress) as show:
        if checksum:
            metadata = {**(metadata or {}), KEY: checksum_of(tensors)}
        counted = tensors if show is None else Counted(tensors.__getitem__, _sizes(tensors), show)
        serializer.save(counted, path, metadata=metadata)


def _sizes(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Bytes of each; of what is no tensor, which the serializer refuses, none."""
    return {name: int(getattr(tensor, "nbytes", 0)) for name, tensor in tensors.items()}


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
        sizes = {name: info.nbytes for name, info in reader.items()}
        tensors = Counted(opened.tensor, sizes, progress)
        serializer.save(tensors, destination, metadata=reader.metadata)
    return ConvertReport(
        source=source,
        source_format=opened.name,
        destination=destination,
        format=name,
        tensors=len(tensors.sizes),
        nbytes=tensors.total,
    )
