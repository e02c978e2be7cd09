"""A bar on the terminal for what takes longer than a moment: bytes, tensors, rate, time left."""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# A bar that flashes up and is gone tells nobody anything.
_PATIENCE_S = 1.0

# Called with (bytes done, bytes in all, name of the tensor at hand). A serializer may go through
# the tensors more than once, to check and then to write: each time the count begins at 0 again.
Progress = Callable[[int, int, str], None]


@contextmanager
def bar(what: str, *, wanted: bool | None = None) -> Iterator[Progress | None]:
    """A :data:`Progress` that draws on stderr, once a second has gone by; removed at the end.

    :param what: in words, e.g. ``"loading 291 tensors"``.
    :param wanted: ``None``: if stderr is a terminal; ``False``: no bar, and nothing is imported.
    """
    shows = sys.stderr is not None and sys.stderr.isatty() if wanted is None else wanted
    if not shows:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress as Bar,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from hardpoint.weights.content import printable

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    drawn = Bar(*columns, console=Console(stderr=True), transient=True)
    task = drawn.add_task(what)
    since = time.monotonic()

    def show(done: int, total: int, name: str) -> None:
        if not drawn.live.is_started and time.monotonic() - since > _PATIENCE_S:
            drawn.start()
        words = f"{what}: {printable(name, 60)}" if name else what
        drawn.update(task, completed=done, total=total, description=words)

    try:
        yield show
    finally:
        drawn.stop()


def ticker(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """For those who tell how many bytes more they have done, in several threads."""
    if progress is None:
        return None
    done, turn = 0, threading.Lock()

    def tick(nbytes: int) -> None:
        nonlocal done
        with turn:
            done += nbytes
            progress(done, total, "")

    return tick


def by_file(progress: Progress | None, files: Sequence[Path]) -> Callable[[Path | None], None]:
    """For those who go through files: called with each beforehand, and with ``None`` at the end."""
    if progress is None:
        return lambda file: None
    sizes = [_size(file) for file in files]
    before, total = itertools.accumulate(sizes, initial=0), sum(sizes)
    return lambda file: progress(next(before), total, "" if file is None else file.name)


def _size(file: Path) -> int:
    """Bytes; 0 of what is no file, or is gone by now: looking at it says so."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except OSError:
        return 0


class Counted(Mapping[str, "torch.Tensor"]):
    """Tensors, each fetched when asked for and let go of by us at once; every fetch is counted."""

    def __init__(
        self,
        fetch: Callable[[str], torch.Tensor],
        sizes: Mapping[str, int],
        progress: Progress | None,
    ) -> None:
        self.sizes = sizes
        self.total = sum(sizes.values())
        self._fetch = fetch
        self._progress = progress
        self._seen: set[str] = set()
        self._done = 0

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._fetch(name)
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
