"""Saving, and converting one file into another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.weights.checksum import KEY, checksum as checksum_of
from hardpoint.weights.choose import open_named, writer_for
from hardpoint.weights.opened import bytes_in_memory
from hardpoint.weights.progress import Counted, Progress, bar, ticker
from hardpoint.weights.provenance import Work
from hardpoint.weights.sharding import STEM
from hardpoint.weights.written import Target, Writer

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
    if checksum:
        with bar(f"hashing {len(tensors)} tensors", wanted=progress) as show:
            tick = ticker(show, sum(_sizes(tensors).values())) if show else None
            metadata = {**(metadata or {}), KEY: checksum_of(tensors, tick)}
    with bar(f"saving {len(tensors)} tensors", wanted=progress) as show:
        counted = tensors if show is None else Counted(tensors.__getitem__, _sizes(tensors), show)
        serializer.save(counted, path, metadata=metadata)


def _sizes(tensors: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """Bytes of each; of what is no tensor, which the serializer refuses, none."""
    return {name: int(getattr(tensor, "nbytes", 0)) for name, tensor in tensors.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertReport:
    """What :func:`convert_weights` or :func:`hardpoint.weights.slice_weights` did.

    :param source_format: the serializer that read ``source``.
    :param format: the serializer that wrote ``destination``.
    :param nbytes: bytes of the tensors, as ``source`` holds them.
    :param files: what was written; the index last, where there is one.
    :param notes: what is not in them, in words.
    """

    source: Path
    source_format: str
    destination: Path
    format: str
    tensors: int
    nbytes: int
    files: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()


def convert_weights(
    source: Path,
    destination: Path,
    *,
    registry: Registry,
    to: str | None = None,
    force: bool = False,
    shard_size: int | None = None,
    shard_name: str = STEM,
    provenance: bool = True,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write the tensors and metadata of ``source`` in another format, atomically.

    Tensors are fetched when the writer asks for them, so that no more than one need be in memory.

    :param to: the serializer that writes; by default the one of ``destination``'s suffix.
    :param force: replace ``destination`` if it exists.
    :param shard_size: bytes of a file at most: ``destination`` becomes a directory of files.
    :param shard_name: what their names begin with; ``diffusers`` wants "diffusion_pytorch_model".
    :param provenance: record what was done, and the SHA-256 of each source file, which is read
        once more for that; see :mod:`hardpoint.weights.provenance`.
    :raises WeightsError: ``destination`` exists, or either side's format does not serve.
    """
    arguments = {} if shard_size is None else {"shard_size": shard_size}
    target = Target(
        path=destination,
        to=to,
        force=force,
        shard_size=shard_size,
        shard_name=shard_name,
        work=Work(operation="convert", arguments=arguments) if provenance else None,
    )
    writer = Writer.of(target, registry)
    opened = open_named(source, registry=registry)
    with opened.reader as reader:
        sizes = {name: bytes_in_memory(info) for name, info in reader.items()}
        nbytes = sum(info.nbytes for info in reader.values())
        files, notes = writer.write(
            opened.tensor, sizes, reader.metadata, [(source, opened)], progress
        )
    return ConvertReport(
        source=source,
        source_format=opened.name,
        destination=destination,
        format=writer.name,
        tensors=len(sizes),
        nbytes=nbytes,
        files=files,
        notes=notes,
    )
