"""What ``hardpoint check`` prints for people: a line a check as it ends, then the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from hardpoint.cli.output import add_row, console, table

if TYPE_CHECKING:
    from hardpoint.testing.report.build import Report

_WORDS = {
    "passed": "ok",
    "failed": "FAILED",
    "crashed": "CRASHED",
    "skipped": "skipped",
    "known": "known failure",
}
_STYLES = {
    "passed": "green",
    "failed": "red",
    "crashed": "red",
    "skipped": "dim",
    "known": "yellow",
}


class Watching:
    """A line for each check that ends, and on a terminal a line for the one that runs."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._screen = console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(),
            TimeElapsedColumn(), console=self._screen, transient=True,
            disable=quiet or not self._screen.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Watching:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Show an event of the journal."""
        if event["event"] == "begin":
            self._bar.reset(self._task, description=event["title"], total=None)
        elif event["event"] == "progress":
            self._bar.update(
                self._task,
                completed=event["done"], total=event["total"], description=event["what"],
            )  # fmt: skip
        elif event["event"] == "end" and not self._quiet:
            outcome = event["outcome"]
            word = f"{_WORDS[outcome]:>13}"
            line = f"{word}  {event['level']:<12} {event['title']}  {event['seconds']:.1f} s"
            # On a terminal above the bar, which lives on stderr; else on stdout, with the verdict.
            where = self._screen if self._screen.is_terminal else console()
            where.print(escape(line), style=_STYLES[outcome])


def show_report(out: Console, report: Report, files: tuple[Path, ...]) -> None:
    """The outcome for people: what failed and why, what was skipped and why, the level."""
    for check in report["checks"]:
        if check["outcome"] in ("failed", "crashed"):
            out.print(f"\n[bold red]{escape(check['name'])}[/] {escape(check['title'])}")
            out.print(escape("\n".join(f"  {line}" for line in check["reason"].splitlines())))
    quiet = [c for c in report["checks"] if c["outcome"] in ("skipped", "known")]
    if quiet:
        listing = table("check", "", "because")
        for check in quiet:
            add_row(listing, check["name"], _WORDS[check["outcome"]], check["reason"])
        out.print()
        out.print(listing)
    counts = Counter(check["outcome"] for check in report["checks"])
    said = ", ".join(f"{count} {_WORDS[outcome]}" for outcome, count in counts.items())
    out.print(f"\n{escape(said)} in {report['seconds']:.0f} s")
    if report["unavailable"]:
        out.print(escape(f"unavailable here, so little could be shown: {report['unavailable']}"))
    ladder = " · ".join(
        f"[green]{row['name']}[/]" if row["reached"] else f"[dim]({row['name']})[/]"
        for row in report["levels"]
    )
    from hardpoint.testing.report.build import level_in_words  # brings pytest, which is an extra

    part = "" if report["complete"] else ", of the checks that ran"
    out.print(
        f"{escape(report['provider'])}: level [bold]{level_in_words(report)}[/]{part}: {ladder}"
    )
    for file in files:
        out.print(f"report: {escape(str(file))}")
