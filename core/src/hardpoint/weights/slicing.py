"""A part of a file: some tensors, a part of each, or a rank's share of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.interfaces.serializer import Index, TensorInfo
from hardpoint.weights.checksum import KEY as CHECKSUM
from hardpoint.weights.choose import open_named
from hardpoint.weights.convert import ConvertReport
from hardpoint.weights.parts import Choice, index_text
from hardpoint.weights.progress import Progress
from hardpoint.weights.provenance import Work
from hardpoint.weights.written import Target, Writer

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry


def slice_weights(
    source: Path,
    destination: Path,
    choice: Choice,
    *,
    registry: Registry,
    to: str | None = None,
    force: bool = False,
    checksum: bool = False,
    provenance: bool = True,
    hashed: bool = False,
    progress: Progress | None = None,
) -> ConvertReport:
    """Write a part of ``source`` to ``destination``, atomically, reading no more than that needs.

    Metadata are kept, but for a checksum, which would be of other tensors.

    :param choice: which tensors, and which part of each.
    :param checksum: add one of the new content.
    :param provenance: record what was done.
    :param hashed: with the SHA-256 of each source file, which reads all of it.
    :raises WeightsError: ``destination`` exists, there is no such part, or a format does not serve.
    """
    work = Work(operation="slice", arguments=_on_record(choice), hashed=hashed)
    target = Target(
        path=destination, to=to, force=force, checksum=checksum, work=work if provenance else None
    )
    writer = Writer.of(target, registry)
    opened = open_named(source, registry=registry)
    with opened.reader as reader:
        parts = choice.of_file(reader, source)

        def fetch(name: str) -> torch.Tensor:
            return opened.tensor(name) if parts[name] == () else opened.part(name, parts[name])

        sizes = {name: _nbytes(reader[name], index) for name, index in parts.items()}
        metadata = {key: value for key, value in reader.metadata.items() if key != CHECKSUM}
        files, notes = writer.write(fetch, sizes, metadata, [(source, opened)], progress)
    return ConvertReport(
        source=source,
        source_format=opened.name,
        destination=destination,
        format=writer.name,
        tensors=len(sizes),
        nbytes=sum(sizes.values()),
        files=files,
        notes=notes,
    )


def _nbytes(info: TensorInfo, index: Index) -> int:
    from hardpoint.storage.slices import checked, result_shape
    from hardpoint.storage.typed import dtype_of

    return (
        math.prod(result_shape(info.shape, checked(index, len(info.shape))))
        * dtype_of(info).itemsize
    )


def _on_record(choice: Choice) -> dict[str, object]:
    """The arguments as JSON holds them; indices as they are written."""
    found: dict[str, object] = {"tensors": list(choice.tensors)}
    if choice.exclude:
        found["exclude"] = list(choice.exclude)
    if choice.index:
        found["index"] = [f"{glob}={index_text(each)}" for glob, each in choice.index.items()]
    if choice.rank is not None:
        dims = [f"{glob}={dim}" for glob, dim in choice.dims.items()]  # their order counts
        found |= {"rank": choice.rank, "of": choice.of, "dims": dims}
    return found
