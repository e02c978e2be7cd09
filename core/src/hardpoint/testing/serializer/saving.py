"""Saving: the same bytes each time, the usual permissions, and all or nothing under kill -9."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint.interfaces.serializer import Serializer
from hardpoint.testing.check import check, expect
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import bench
from hardpoint.testing.serializer.killing import kill_savers
from hardpoint.testing.serializer.samples import random
from hardpoint.testing.subject import Subject

_UMASKS = (0o022, 0o077, 0o002)


class Saving:
    """What a save leaves on the disk."""

    @check("robust")
    def test_saving_twice_gives_the_same_bytes(self, subject: Subject) -> None:
        """The same tensors and metadata give the same bytes, in this process and in another."""
        with bench(subject, saves=True) as at:
            here = [_saved_hash(at.serializer, at.path(f"{turn}")) for turn in range(3)]
            expect(
                len(set(here)) == 1,
                "three saves of the same tensors and metadata gave files that differ",
            )
            # Sets and hashes of text are another process's own; the file must not be.
            seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
            there = apart(
                _save_for_hash, at, "saving in a new process", environment={"PYTHONHASHSEED": seed}
            )
            expect(
                there["hash"] == here[0],
                "the same tensors and metadata gave another file in another process "
                "(PYTHONHASHSEED differs): sort what comes out of a set",
            )

    @check("robust")
    def test_a_new_file_has_the_usual_permissions(self, subject: Subject) -> None:
        """A new file has the mode that the umask leaves, as any program's; not 0600."""
        with bench(subject, saves=True) as at:
            modes = apart(_save_under_umasks, at, "saving under several umasks")
            for umask in _UMASKS:
                found, usual = modes[str(umask)], 0o666 & ~umask
                expect(
                    found == usual,
                    f"under umask {umask:03o} a new file has mode {found:03o}, not {usual:03o}: "
                    f"others who may read files cannot read this one, or the other way round",
                )

    @check("robust")
    def test_a_killed_save_leaves_a_whole_file(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """A process killed (SIGKILL) anywhere in save() leaves the old file, or the whole new one.

        What it left otherwise is swept by later saves, and does not pile up.
        """
        with bench(subject, saves=True) as at:
            figures.update(apart(kill_savers, at, "killing processes that save", timeout=300))


def _sample() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    tensors = {f"layer.{i}.weight": random((i + 1, 3), seed=i) for i in range(12)}
    return tensors, {f"key{i}": str(i) for i in range(12)}


def _saved_hash(serializer: Serializer, path: Path) -> str:
    tensors, metadata = _sample()
    serializer.save(tensors, path, metadata=metadata)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _save_for_hash(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, object]:
    return {"hash": _saved_hash(serializer, folder / f"apart{facts['suffix']}")}


def _save_under_umasks(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, object]:
    modes: dict[str, object] = {}
    for umask in _UMASKS:
        path = folder / f"umask{umask}{facts['suffix']}"
        os.umask(umask)
        serializer.save({"t": random((2,))}, path)
        inside = [p for p in path.rglob("*") if p.is_file()]
        modes[str(umask)] = (inside[0] if inside else path).stat().st_mode & 0o777
    return modes
