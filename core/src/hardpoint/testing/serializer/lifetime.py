"""Tensors and files: each outlives the other, neither changes the other, nothing is held on to."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Serializer
from hardpoint.testing.check import check, expect, skip_unless
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import Bench, attempt, bench
from hardpoint.testing.serializer.samples import pattern, random, same
from hardpoint.testing.subject import Subject

_OPENED = 60  # times; a leak of one descriptor each time shows
_SLACK = 4  # descriptors or threads that a library may open once


class Lifetime:
    """Each in a process of its own: memory that is gone kills whoever touches it."""

    @check("round-trips")
    def test_tensors_outlive_the_reader(self, subject: Subject) -> None:
        """Tensors and slices stay valid when the reader is closed, and the file deleted."""
        with bench(subject) as at:
            apart(_outlive, at, "using tensors of a closed reader", path=str(at.specimen()))

    @check("robust")
    def test_writing_to_a_tensor_leaves_the_file_alone(self, subject: Subject) -> None:
        """Tensors can be written to, and the file, and whoever else reads it, never notice."""
        with bench(subject) as at:
            apart(_write, at, "writing to a tensor of an open file", path=str(at.specimen()))

    @check("robust")
    def test_a_file_can_be_saved_over_itself(self, subject: Subject) -> None:
        """Tensors that are views of a file can be saved to its own name."""
        with bench(subject, saves=True) as at:
            apart(_over_itself, at, "saving the tensors of an open file to its own name")

    @check("robust")
    def test_nothing_stays_open(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Opening and refusing many files leaves no descriptor, map or thread behind."""
        skip_unless(Path("/proc/self/fd").is_dir(), "this system does not show a process's files")
        with bench(subject) as at:
            good = at.specimen()
            damaged = at.path("damaged")
            if good.is_file():
                damaged.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
            _use(at, good, damaged)
            before = _open_files(), threading.active_count()
            for _ in range(_OPENED):
                _use(at, good, damaged)
            gc.collect()
            files, threads = _open_files() - before[0], threading.active_count() - before[1]
            maps = Path("/proc/self/maps").read_text().count(str(at.folder))
            figures.update(opened=_OPENED, files_left=files, threads_left=threads, maps_left=maps)
            used = f"after opening and closing a good and a cut file {_OPENED} times"
            expect(files <= _SLACK, f"{used}, {files} more descriptors are open than before")
            expect(threads <= _SLACK, f"{used}, {threads} more threads run than before")
            expect(maps <= _SLACK, f"{used}, {maps} maps of its files are left")


def _use(at: Bench, good: Path, damaged: Path) -> None:
    with at.serializer.open(good) as reader:
        for name in reader:
            reader.tensor(name)
    if damaged.exists():
        opened = attempt("open() of a file cut in half", at.serializer.open, damaged)
        if not isinstance(opened, WeightsError):
            opened.close()


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the names alone


def _outlive(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, object]:
    path = Path(facts["path"])
    with serializer.open(path) as reader:
        given = {name: reader.tensor(name) for name in reader}
        rows = {name: reader.slice(name, 0) for name, t in given.items() if t.dim() and len(t)}
        copies = {name: tensor.clone() for name, tensor in given.items()}
        row_copies = {name: tensor.clone() for name, tensor in rows.items()}
    del reader
    for file in [path] if path.is_file() else list(path.rglob("*")):
        if file.is_file():
            file.unlink()
    gc.collect()
    # New memory where the old may have been.
    filler = [torch.full((64, 1024), 77.0) for _ in range(64)]
    for name, tensor in given.items():
        expect(same(tensor, copies[name]), f"tensor {name!r} changed when its reader was closed")
    for name, tensor in rows.items():
        expect(
            same(tensor, row_copies[name]), f"a slice of {name!r} changed when its reader closed"
        )
    del filler
    return {}


def _write(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, object]:
    path = Path(facts["path"])
    with serializer.open(path) as reader, serializer.open(path) as other:
        (name, *_) = [n for n in reader if reader.tensor(n).numel()]
        tensor = reader.tensor(name)
        before = tensor.clone()
        tensor.zero_()
        expect(int((tensor != 0).sum()) == 0, f"tensor {name!r} was set to zero, and is not zero")
        expect(
            same(other.tensor(name), before),
            f"tensor {name!r} was set to zero, and another reader of the file sees that",
        )
    with serializer.open(path) as reader:
        expect(
            same(reader.tensor(name), before),
            f"tensor {name!r} was set to zero, and so is the file: map it copy-on-write, or copy",
        )
    return {}


def _over_itself(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, object]:
    path = folder / f"itself{facts['suffix']}"
    wanted = {"a": random((500, 100), seed=1), "b": random((300,), seed=2)}
    serializer.save(wanted, path)
    with serializer.open(path) as reader:
        held = {name: reader.tensor(name) for name in reader}
        refusal = attempt(
            "save() over an open file", serializer.save, {**held, "c": pattern(2)}, path
        )
        expect(
            not isinstance(refusal, WeightsError),
            f"saving the tensors of an open file to its own name is refused: {refusal}",
        )
        for name, tensor in wanted.items():
            expect(same(held[name], tensor), f"tensor {name!r} changed when its file was replaced")
    with serializer.open(path) as reader:
        expect(set(reader) == {"a", "b", "c"}, f"saved a, b and c; it holds {sorted(reader)}")
        for name, tensor in wanted.items():
            expect(
                same(reader.tensor(name), tensor), f"tensor {name!r} was saved as something else"
            )
    return {}
