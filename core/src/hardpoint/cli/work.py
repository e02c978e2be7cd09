"""Long work on the command line: stdout is kept for the answer, stderr says what goes on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn as Elapsed,
)

from hardpoint.cli.output import console


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal's stderr that ``what`` is being done; keep its prints off stdout."""
    screen = console(stderr=True)
    with (
        screen.status(escape(f"{what} ...")) if screen.is_terminal else nullcontext(),
        stdout_kept(),
    ):
        yield


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Send to stderr what a model's code or a vendor's compiler prints on stdout.

    The file descriptor too: compilers print from C++.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


class Steps:
    """A progress bar on a terminal's stderr, fed by ``hardpoint.compile(progress=...)``."""

    def __init__(self) -> None:
        screen = console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
            MofNCompleteColumn(), Elapsed(),
            console=screen, transient=True, disable=not screen.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("compiling")

    def __enter__(self) -> Steps:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total`` segments are compiled, and now ``what`` is done."""
        self._bar.update(self._task, completed=done, total=total, description=what)
