"""Kill processes that save, at every step they take and at random moments, and look what is left.

A step is an audit event (opening, renaming, truncating a file) or a tensor that is asked for. Code
outside Python shows no steps: it is met by the random moments.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hardpoint.errors import WeightsError
from hardpoint.interfaces.serializer import Serializer
from hardpoint.testing.check import expect, fail
from hardpoint.testing.serializer.samples import seeded

_STEPS = ("open", "os.rename", "os.remove", "os.truncate", "os.link", "os.mkdir", "os.rmdir",
          "mmap.__new__", "os.chmod", "shutil.move", "shutil.copyfile")  # fmt: skip
_MOST_STEPS = 10  # of each kind
_RANDOM = 16  # kills at random moments
_TENSORS = 4
_ELEMENTS = 500_000  # of each: 8 MB together, so that writing takes a moment
_LEFT = 2  # further files that may lie beside the saved one in the end
_PATIENCE = 30  # seconds for one save


class _Counted(Mapping[str, torch.Tensor]):
    """Tensors of one generation, that call ``step`` each time one is asked for."""

    def __init__(self, generation: int) -> None:
        value = float(generation)
        self._tensors = {f"t{i}": torch.full((_ELEMENTS,), value) for i in range(_TENSORS)}
        self.step: Callable[[], None] | None = None

    def __getitem__(self, name: str) -> torch.Tensor:
        if self.step is not None:
            self.step()
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def kill_savers(serializer: Serializer, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The figures: kills by kind, and how often the old or the new file was there."""
    path = folder / f"sample{facts['suffix']}"
    scene = _Scene(serializer, path)
    begun = time.monotonic()
    serializer.save(_Counted(0), path)
    duration = time.monotonic() - begun
    kills = {"at file steps": 0, "at tensors": 0, "at random": 0}
    for number in range(1, _MOST_STEPS + 1):
        if not scene.kill_at(f"at its file step {number}", event=number):
            break
        kills["at file steps"] += 1
    for number in range(1, _MOST_STEPS + 1):
        if not scene.kill_at(f"when it asked for a tensor, time {number}", asked=number):
            break
        kills["at tensors"] += 1
    draw = seeded()
    for turn in range(_RANDOM):
        # One in each part of the time a save takes, and somewhat past it.
        after = duration * 1.2 * (turn + draw.random()) / _RANDOM
        scene.kill_after(after)
        kills["at random"] += 1
    serializer.save(_Counted(0), path)
    left = sorted(p.name for p in folder.iterdir() if p != path)
    size = sum(p.stat().st_size for p in folder.iterdir() if p != path)
    total = sum(kills.values())
    expect(
        len(left) <= _LEFT,
        f"after {total} killed saves and one that ended, {len(left)} files ({size >> 20} MB) lie "
        f"beside the saved one, e.g. {left[0] if left else ''}: sweep what dead writers left",
    )
    return {**kills, "old file": scene.old, "new file": scene.new, "left": len(left)}


class _Scene:
    """A file, and which generation it must hold."""

    def __init__(self, serializer: Serializer, path: Path) -> None:
        self._serializer = serializer
        self._path = path
        self._generation = 0
        self.old = self.new = 0

    def kill_at(self, when: str, *, event: int = 0, asked: int = 0) -> bool:
        """Let a child save, which kills itself at that step; whether it came to that."""
        child = self._start(event, asked)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, -signal.SIGKILL):
            hung = " (it hung)" if code == -signal.SIGALRM else ""
            fail(f"a save that was to be killed {when} ended with {code}{hung}")
        self._judge(when)
        return code != 0

    def kill_after(self, seconds: float) -> None:
        """Let a child save, and kill it."""
        child = self._start(0, 0)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self._judge(f"after {seconds * 1000:.1f} ms")

    def _start(self, event: int, asked: int) -> int:
        tensors = _Counted(self._generation + 1)
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            signal.alarm(_PATIENCE)
            if asked:
                tensors.step = _Die(asked)
            if event:
                _die_at_event(event)
            self._serializer.save(tensors, self._path)
            status = 0
        finally:
            os._exit(status)

    def _judge(self, when: str) -> None:
        found = self._read(when)
        if found == self._generation + 1:
            self._generation += 1
            self.new += 1
        elif found == self._generation:
            self.old += 1
        else:
            fail(
                f"a save was killed {when}, and the file holds neither the old nor the new tensors"
            )

    def _read(self, when: str) -> int:
        """Which generation the whole file is of, or -1."""
        try:
            with self._serializer.open(self._path) as reader:
                values = [reader.tensor(f"t{i}") for i in range(_TENSORS)]
                bounds = {(int(v.min()), int(v.max()), v.numel()) for v in values}
        except (WeightsError, OSError) as error:
            fail(
                f"a save was killed {when}, and the file that was there is lost: {error}\n"
                f"write to a temporary file in the same folder, sync it, and rename it"
            )
        (low, high, count), *more = bounds
        return low if low == high and count == _ELEMENTS and not more else -1


class _Die:
    """Kill this process at the n-th call."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _die_at_event(number: int) -> None:
    step = _Die(number)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in _STEPS:
            step()

    sys.addaudithook(hook)
