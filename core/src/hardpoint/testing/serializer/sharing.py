"""A file that is replaced while others read it: each sees the old one or the new one, whole."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hardpoint.interfaces.serializer import Serializer
from hardpoint.processes import signal_name
from hardpoint.testing.check import check, expect
from hardpoint.testing.serializer.apart import apart
from hardpoint.testing.serializer.bench import bench
from hardpoint.testing.serializer.samples import same
from hardpoint.testing.subject import Subject

_SAVES = 40
_PROCESSES = 2
_THREADS = 4
_PATIENCE = 90  # seconds for any of the processes


class Sharing:
    """Several readers at once, in threads and processes."""

    @check("robust")
    def test_readers_see_a_whole_file_while_it_is_replaced(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """While a file is saved again and again, readers always find one whole file.

        Never an older one than before, in threads and in other processes.
        """
        with bench(subject, saves=True) as at:
            figures.update(apart(_replace_and_read, at, "reading a file while it is replaced"))

    @check("robust")
    def test_readers_in_threads_do_not_disturb_each_other(self, subject: Subject) -> None:
        """Threads that open, read and close the same file at once all get the same tensors."""
        with bench(subject) as at:
            apart(_read_in_threads, at, "reading a file in threads", path=str(at.specimen()))


def _replace_and_read(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
    path, done = folder / f"shared{facts['suffix']}", folder / "done"
    _save(serializer, path, 0)
    children = [
        _child(partial(_read_and_tell, serializer, path, done, folder / f"reader{number}"))
        for number in range(_PROCESSES)
    ]
    writer = _child(partial(_write_all, serializer, path, done))
    told: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda: told.append(_read_until(serializer, path, done)))
        for _ in range(_THREADS)
    ]
    for thread in threads:
        thread.start()
    _, status = os.waitpid(writer, 0)
    done.touch()  # also where the writer died: nobody shall wait for it
    for thread in threads:
        thread.join()
    for number, child in enumerate(children):
        _, ended = os.waitpid(child, 0)
        expect(ended == 0, f"a process that read a file while it was replaced {_ending(ended)}")
        told.append(tuple(json.loads((folder / f"reader{number}").read_text())))
    expect(status == 0, f"the process that saved the file {_SAVES} times {_ending(status)}")
    wrong = [what for _, what in told if what]
    expect(not wrong, f"while the file was replaced, {wrong[0] if wrong else ''}")
    return {"saves": _SAVES, "readers": len(told), "reads": sum(count for count, _ in told)}


def _save(serializer: Serializer, path: Path, generation: int) -> None:
    # Also the size changes: whoever takes the size of one file for another's notices.
    rows = 100 + generation % 7
    tensors = {f"t{i}": torch.full((rows, 256), float(generation)) for i in range(4)}
    serializer.save(tensors, path)


def _write_all(serializer: Serializer, path: Path, done: Path) -> None:
    for generation in range(1, _SAVES + 1):
        _save(serializer, path, generation)
    done.touch()


def _read_until(serializer: Serializer, path: Path, done: Path) -> tuple[int, str]:
    """How often the file was read, and what was wrong, until ``done`` is there."""
    last, count = 0, 0
    while True:
        ending = done.exists()
        try:
            with serializer.open(path) as reader:
                tensors = [reader.tensor(f"t{i}") for i in range(4)]
            seen = {int(value) for t in tensors for value in (t.min(), t.max())}
            shapes = {tuple(t.shape) for t in tensors}
        except Exception as error:
            return count, f"a reader got {type(error).__name__}: {error}"
        if len(seen) != 1 or shapes != {(100 + min(seen) % 7, 256)}:
            return count, f"a reader found parts of several files in one: values {sorted(seen)}"
        if min(seen) < last:
            return count, f"a reader found file {min(seen)} after file {last}: an older one"
        last, count = min(seen), count + 1
        if ending:
            return count, ""


def _read_in_threads(
    serializer: Serializer, folder: Path, facts: Mapping[str, Any]
) -> dict[str, Any]:
    path = Path(facts["path"])
    with serializer.open(path) as reader:
        wanted = {name: reader.tensor(name).clone() for name in reader}
    wrong: list[str] = []
    start = threading.Barrier(_THREADS)

    def work() -> None:
        start.wait()
        try:
            for _ in range(50):
                with serializer.open(path) as reader:
                    for name, tensor in wanted.items():
                        if not same(reader.tensor(name), tensor):
                            wrong.append(f"tensor {name!r} is another in a thread")
                            return
        except Exception as error:
            wrong.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not wrong, f"{_THREADS} threads read one file at once, and {wrong[:1]}")
    return {}


def _read_and_tell(serializer: Serializer, path: Path, done: Path, answer: Path) -> None:
    answer.write_text(json.dumps(_read_until(serializer, path, done)))


def _child(work: Callable[[], None]) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(_PATIENCE)
        work()
        status = 0
    finally:
        os._exit(status)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"was ended by {signal_name(-code)}"
    return f"ended with status {code}"
