"""Several files made one: shards without an index, adapters, parts that were cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import WeightsError, did_you_mean
from hardpoint.weights.checksum import KEY as CHECKSUM
from hardpoint.weights.choose import open_named
from hardpoint.weights.content import printable
from hardpoint.weights.opened import Opened, bytes_in_memory
from hardpoint.weights.progress import Progress
from hardpoint.weights.provenance import Work, without_records
from hardpoint.weights.sharding import STEM
from hardpoint.weights.written import _OF_SETS, Target, Writer

if TYPE_CHECKING:
    import torch

    from hardpoint.registry.registry import Registry

Keep = Literal["agree", "first", "last", "none"]
KEEPS: tuple[Keep, ...] = ("agree", "first", "last", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeReport:
    """What :func:`merge_weights` did.

    :param source_formats: the serializers that read ``sources``.
    :param format: the serializer that wrote ``destination``.
    :param nbytes: bytes of the tensors.
    :param files: what was written; the index last, where there is one.
    :param notes: what is not in them, in words.
    """

    sources: tuple[Path, ...]
    source_formats: tuple[str, ...]
    destination: Path
    format: str
    tensors: int
    nbytes: int
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def merge_weights(
    sources: Sequence[Path],
    destination: Path,
    *,
    registry: Registry,
    to: str | None = None,
    force: bool = False,
    last_wins: bool = False,
    metadata: Keep = "agree",
    shard_size: int | None = None,
    shard_name: str = STEM,
    checksum: bool = False,
    provenance: bool = True,
    progress: Progress | None = None,
) -> MergeReport:
    """Write the tensors of all ``sources`` to ``destination``, atomically.

    Tensors are fetched when the writer asks for them, so that no more than one need be in memory.

    :param last_wins: of a name that several have, take the last; by default that is an error.
    :param metadata: of a key with several values: ``"agree"`` is an error, ``"first"`` and
        ``"last"`` take that source's; ``"none"`` keeps no metadata. A checksum is never kept, and
        neither is the size of a set.
    :param shard_size: bytes of a file at most: ``destination`` becomes a directory of files.
    :param shard_name: what their names begin with; ``diffusers`` wants "diffusion_pytorch_model".
    :param checksum: add one of the new content.
    :param provenance: record what was done, and the SHA-256 of each source file, which is read
        once more for that.
    :raises WeightsError: two sources have the same name, or other metadata; ``destination`` exists;
        or a format does not serve.
    """
    if metadata not in KEEPS:
        raise WeightsError(
            f"{metadata!r} is no rule for metadata", remedy=did_you_mean(metadata, KEEPS)
        )
    arguments: dict[str, object] = {"last_wins": last_wins, "metadata": metadata}
    if shard_size is not None:
        arguments["shard_size"] = shard_size
    target = Target(
        path=destination,
        to=to,
        force=force,
        shard_size=shard_size,
        shard_name=shard_name,
        checksum=checksum,
        work=Work(operation="merge", arguments=arguments) if provenance else None,
    )
    writer = Writer.of(target, registry)
    with ExitStack() as stack:
        opened = [(path, open_named(path, registry=registry)) for path in sources]
        for _, each in opened:
            stack.enter_context(each.reader)
        owners = _owners(opened, last_wins)

        def fetch(name: str) -> torch.Tensor:
            return owners[name].tensor(name)

        sizes = {name: bytes_in_memory(owner.reader[name]) for name, owner in owners.items()}
        texts = _metadata(opened, metadata)
        files, notes = writer.write(fetch, sizes, texts, opened, progress)
    return MergeReport(
        sources=tuple(sources),
        source_formats=tuple(each.name for _, each in opened),
        destination=destination,
        format=writer.name,
        tensors=len(sizes),
        nbytes=sum(sizes.values()),
        files=files,
        notes=notes,
    )


def _owners(opened: Sequence[tuple[Path, Opened]], last_wins: bool) -> dict[str, Opened]:
    """Whose tensor to take for each name."""
    owners: dict[str, Opened] = {}
    found_in: dict[str, Path] = {}
    for path, each in opened:
        for name in each.reader:
            if name in owners and not last_wins:
                raise WeightsError(
                    f"two sources have a tensor {printable(name)}",
                    cause=f"it is in {found_in[name]} and in {path}",
                    remedy="leave one source out, slice it (--exclude), or last_wins=True"
                    " (--last-wins)",
                )
            owners[name], found_in[name] = each, path
    return owners


def _metadata(opened: Sequence[tuple[Path, Opened]], keep: Keep) -> dict[str, str]:
    if keep == "none":
        return {}
    kept: dict[str, str] = {}
    found_in: dict[str, Path] = {}
    for path, each in opened:
        for key, value in _own(each.reader.metadata).items():
            if key in kept and kept[key] != value:
                if keep == "agree":
                    raise WeightsError(
                        f"two sources have other metadata {printable(key)}",
                        cause=f"it is {printable(kept[key], 60)} in {found_in[key]}, and"
                        f" {printable(value, 60)} in {path}",
                        remedy="say which to keep: metadata= (--metadata) first, last or none",
                    )
                if keep == "first":
                    continue
            kept[key], found_in[key] = value, path
    return kept


def _own(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata less what is of one source only: its checksum and size, where it came from."""
    left_out = (CHECKSUM, *_OF_SETS)
    return {key: value for key, value in without_records(metadata).items() if key not in left_out}
