"""What every benchmark shares: fair timing, the machine in words, and a page of tables.

The convention: ``python tests/bench/NAME.py --output docs/benchmarks/NAME.md``. A script prints its
page, asserts nothing about time, and says PASS or FAIL beside each budget of the design.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that one case took, one entry a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure to quote."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """The fastest round: what the work costs with the machine to itself."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """The distance between the quartiles, as a share of the median."""
        if len(self.seconds) < 4:
            return (max(self.seconds) - min(self.seconds)) / self.median
        quarter, _, three_quarters = statistics.quantiles(self.seconds, n=4)
        return (three_quarters - quarter) / self.median

    def cells(self, unit: str) -> tuple[str, str, str]:
        """Median, fastest and spread, as written in a table."""
        scale = {"s": 1.0, "ms": 1e3, "us": 1e6}[unit]
        return (_figure(self.median * scale), _figure(self.low * scale), f"±{self.spread / 2:.0%}")


def _figure(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def interleaved(
    cases: Mapping[str, Callable[[], float | None]], rounds: int, *, warmup: int = 1
) -> dict[str, Timing]:
    """Run every case once a round, so that a slow minute of the machine hits all alike.

    A case that returns a number has timed itself (in seconds); else the call is timed. Every other
    round runs in the opposite order, so that no case always follows the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-warmup, rounds):
        for name in list(cases)[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            own = cases[name]()
            took = time.perf_counter() - started if own is None else own
            if number >= 0:
                seconds[name].append(took)
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


def ratio(value: float, of: float) -> str:
    """``value / of``, as written in a table: ``2.4x``."""
    return f"{_figure(value / of)}x"


def verdict(value: float, budget: float) -> str:
    """``PASS`` where ``value`` is within ``budget``."""
    return "PASS" if value <= budget else "FAIL"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table, its columns aligned; all but the first to the right."""
    cells = [[str(cell).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [f"{'-' * (width - 1)}{'-' if n == 0 else ':'}" for n, width in enumerate(widths)]
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *map(line, cells[1:])])


def machine() -> str:
    """The machine and the versions that the figures come from, as a Markdown list."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    versions = [f"Python {platform.python_version()}"]
    for name in ("torch", "pluggy", "hardpoint"):
        versions.append(f"{name} {importlib.metadata.version(name)}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return "\n".join(
        [
            f"- {_processor()}, {cores} cores, {platform.system()} {platform.machine()}",
            f"- {', '.join(versions)}",
            f"- load average at the end: {load} (1, 5, 15 minutes); {time.strftime('%Y-%m-%d')}",
        ]
    )


def _processor() -> str:
    """The processor's name, from the kernel where it tells it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


@dataclass(slots=True)
class Page:
    """A page of results, printed as it grows and written at the end."""

    title: str
    parts: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a paragraph, a heading or a table, and print it."""
        self.parts.append(text)
        print(f"\n{text}", flush=True)

    def keep_others(self, output: Path | None) -> None:
        """Take over from the page that is there, in its order, each section not measured now."""
        if output is None or not output.is_file():
            return
        _, *old = ("\n\n" + output.read_text("utf-8").strip()).split("\n\n## ")
        now = "\n\n".join(["", *self.parts]).split("\n\n## ")
        fresh = {section.partition("\n")[0]: section for section in now[1:]}
        both = {section.partition("\n")[0]: section for section in old} | fresh
        both.pop("The machine", None)
        self.parts = [now[0].strip(), *(f"## {section}" for section in both.values())]

    def finish(self, output: Path | None, script: str) -> None:
        """Add the machine, and write the page where asked."""
        self.add(f"## The machine\n\n{machine()}")
        if output is not None:
            note = f"Generated by `python tests/bench/{Path(script).name}`; do not edit."
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text("\n\n".join([f"# {self.title}", note, *self.parts]) + "\n", "utf-8")
            print(f"\nwritten: {output}")


def arguments(doc: str | None, *, rounds: int) -> argparse.Namespace:
    """The options that every script takes: ``--output`` and ``--rounds``."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the page to this Markdown file")
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds of each measurement")
    return parser.parse_args()
