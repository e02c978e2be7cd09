"""Writing what was made of other files: metadata, the record of what was done, one file or many."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.errors import WeightsError
from hardpoint.storage.atomic import only_if
from hardpoint.weights.checksum import KEY as CHECKSUM, checksum as checksum_of
from hardpoint.weights.choose import writer_for
from hardpoint.weights.progress import Counted, Progress, ticker
from hardpoint.weights.provenance import KEY, Work, files_of, record_of, without_records
from hardpoint.weights.sharding import (
    STEM,
    check_directory,
    save_sharded,
    set_suffix,
    shard_writer_for,
)

if TYPE_CHECKING:
    import torch

    from hardpoint.interfaces.serializer import Serializer
    from hardpoint.registry.registry import Registry
    from hardpoint.weights.opened import Opened

# What a set of shards says of itself, and readers give as metadata.
_OF_SETS = ("total_size", "total_parameters")
_PT = (".safetensors",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to write, and how.

    :param to: the serializer that writes; by default the one of the suffix of ``path``.
    :param force: replace ``path`` if it exists.
    :param shard_size: bytes of a file at most; ``path`` is then a directory of several.
    :param shard_name: what the names of those begin with.
    :param checksum: add one of the new content.
    :param work: what to put on record; ``None``: nothing.
    """

    path: Path
    to: str | None = None
    force: bool = False
    shard_size: int | None = None
    shard_name: str = STEM
    checksum: bool = False
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class Writer:
    """A target that may be written to, and who does it."""

    target: Target
    registry: Registry
    name: str
    serializer: Serializer

    @classmethod
    def of(cls, target: Target, registry: Registry) -> Writer:
        """Before anything is read.

        :raises WeightsError: the path exists, or nobody writes such files.
        """
        _check_free(target)
        if target.shard_size is None:
            return cls(target, registry, *writer_for(target.path, registry, target.to))
        writer = shard_writer_for(target.path, registry, target.to, target.shard_name)
        return cls(target, registry, *writer)

    def write(
        self,
        fetch: Callable[[str], torch.Tensor],
        sizes: Mapping[str, int],
        metadata: Mapping[str, str],
        sources: Sequence[tuple[Path, Opened]],
        progress: Progress | None,
    ) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """Write the tensors called as ``sizes`` are; returns the files, and what to tell the user.

        :param fetch: gives each tensor when it is needed.
        :param sizes: bytes of each.
        """
        target, notes = self.target, []
        read = [file for source in sources for file in files_of(*source).values()]

        def still() -> None:
            """What was so when the work began, and was put on record."""
            for file in read:
                file.check_unchanged()
            if target.shard_size is None:
                _check_free(target)
            else:
                self._check_directory()

        texts = without_records(metadata)
        if any(len(files_of(*source)) > 1 for source in sources):
            texts = {key: value for key, value in texts.items() if key not in _OF_SETS}
        held = self.serializer.holds_metadata(target.path)
        if target.checksum:
            texts[CHECKSUM] = checksum_of(Counted(fetch, sizes, progress))
        if target.work is not None and held:
            texts[KEY] = self._record(target.work, sources, progress)
        if target.work is not None and not held:
            notes.append(
                f"{target.path.name} has no place for metadata: where it came from is not recorded"
            )
        if not held and texts.pop("format", None) == "pt":
            notes.append("metadata left out: format=pt")
        if target.shard_size is not None or (KEY in texts and target.path.name.endswith(_PT)):
            # transformers 4 refuses metadata that do not say so, and takes files without any.
            texts.setdefault("format", "pt")
        files: tuple[Path, ...] = (target.path,)
        with only_if(still):
            if target.shard_size is not None:
                files = save_sharded(
                    self.registry, (self.name, self.serializer), target.path, fetch, sizes,
                    texts, target.shard_size, target.shard_name, progress,
                )  # fmt: skip
            else:
                self.serializer.save(Counted(fetch, sizes, progress), target.path, metadata=texts)
        return files, tuple(notes)

    def _check_directory(self) -> None:
        target = self.target
        _check_free(target)
        suffix = set_suffix(self.registry.info("serializer", self.name).suffixes)
        check_directory(target.path, target.shard_name, suffix)

    def _record(
        self, work: Work, sources: Sequence[tuple[Path, Opened]], progress: Progress | None
    ) -> str:
        tick = None
        if progress is not None and work.hashed:
            files = [each for source in sources for each in files_of(*source).values()]
            tick = ticker(progress, sum(file.size for file in files))
        origin = self.registry.record("serializer", self.name).origin
        return record_of(work, sources, (self.name, origin), tick)


def _check_free(target: Target) -> None:
    if os.path.lexists(target.path) and not target.force:
        raise WeightsError(
            f"{target.path} exists",
            cause="nothing is replaced unasked",
            remedy="choose another name, or force=True (--force)",
        )
