"""The table of a benchmark: filled in while it is measured on a terminal, plain elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hardpoint.benching.columns import Column, columns, merged
from hardpoint.benching.row import BenchRow
from hardpoint.cli.output import add_row, console
from hardpoint.cli.work import stdout_kept

# A remark may be folded; so much of it is one line.
_REMARK = 28
_GAP = 2


class BenchScreen:
    """What is seen while a benchmark runs: the table on stdout, the bar on stderr.

    Nothing is painted by itself: that would take time from what is being timed. The bench calls
    between rounds, when all children stand still.

    :param shows_table: not under ``--json``. :ivar rows: the last that it was told.
    """

    def __init__(self, *, shows_table: bool) -> None:
        self._stack = ExitStack()
        self.rows: Sequence[BenchRow] = ()
        errors = console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TimeElapsedColumn(), console=errors, auto_refresh=False, transient=True,
            disable=not errors.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("starting", total=None)
        self._live: Live | None = None
        self._shows = shows_table and sys.stdout.isatty()

    def __enter__(self) -> BenchScreen:
        if not self._shows:
            self._stack.enter_context(stdout_kept())
            self._stack.enter_context(self._bar)
            return self
        # Painted through a descriptor of its own: what else is printed meanwhile goes to stderr.
        stream = self._stack.enter_context(os.fdopen(os.dup(1), "w", encoding="utf-8"))
        # Rich asks the usual descriptors for the width, and stdout is not where it was.
        width = os.get_terminal_size(stream.fileno()).columns or None
        screen = Console(file=stream, highlight=False, width=width)
        self._stack.enter_context(stdout_kept())
        self._live = Live(console=screen, auto_refresh=False, transient=True,
                          redirect_stdout=False, redirect_stderr=False)  # fmt: skip
        self._stack.enter_context(self._live)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def progress(self, done: int, total: int, what: str) -> None:
        """``done`` of ``total``, and now ``what`` is done."""
        self._bar.update(self._task, completed=done, total=total or None, description=what)
        self._paint()

    def watch(self, rows: Sequence[BenchRow]) -> None:
        """Rows changed."""
        self.rows = rows
        self._paint()

    def _paint(self) -> None:
        if self._live is None:
            self._bar.refresh()
            return
        # What does not fit is cut at the bottom: the bar stands on top.
        shown: list[Any] = [self._bar.get_renderable()] if not self._bar.disable else []
        if self.rows:
            shown.append(bench_table(self.rows, self._live.console.width))
        self._live.update(Group(*shown), refresh=True)


def bench_table(rows: Sequence[BenchRow], width: int | None) -> Table:
    """The table, in the house style.

    :param width: of the screen; where it is narrow, the least columns are left out.
    """
    rows = merged(rows)
    shown = fitting(columns(rows), rows, width)
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in shown:
        last = column is shown[-1]
        made.add_column(
            column.name, justify="right" if column.number else "left", no_wrap=not last,
            overflow="fold",
        )  # fmt: skip
    for row in rows:
        add_row(made, *(c.cell(row) for c in shown), style=_style(row))
    return made


def fitting(wanted: Sequence[Column], rows: Sequence[BenchRow], width: int | None) -> list[Column]:
    """The columns that fit into ``width`` characters, the most important of them."""
    shown = list(wanted)
    while width is not None and sum(_width(c, rows) + _GAP for c in shown) - _GAP > width:
        least = max(shown, key=lambda c: c.rank)
        if not least.rank:
            break
        shown.remove(least)
    return shown


def left_out(rows: Sequence[BenchRow], width: int | None) -> Text | None:
    """Which columns there is no room for."""
    rows = merged(rows)
    there = columns(rows)
    gone = [c.name for c in there if c not in fitting(there, rows, width)]
    if not gone:
        return None
    return Text(f"no room for {', '.join(gone)}: --csv, --html and --json have all", style="dim")


def _width(column: Column, rows: Sequence[BenchRow]) -> int:
    widest = max(len(text) for text in (column.name, *(column.cell(r) for r in rows)))
    return min(widest, _REMARK) if column.name == "remark" else widest


def _style(row: BenchRow) -> str | None:
    if row.failure is not None or row.state == "not tried" or not row.within:
        return "dim"
    if row.eager:
        return "italic"
    return "green" if row.front else None
