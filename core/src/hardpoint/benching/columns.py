"""The columns of the table, in the terminal, as text, and on the page. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hardpoint.benching.row import BenchRow
from hardpoint.measuring.results import Errors, Timing
from hardpoint.units import size

# A share of fewer samples is told as a count: "100 %" of a single one says too much.
_FEW = 100


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    :param name: its head. :param cell: of a row, ``""`` where it is not known.
    :param key: what it is sorted by on the page; ``None``: by its text.
    :param rank: the greater, the sooner it is left out where the screen is narrow; 0: never.
    """

    name: str
    cell: Callable[[BenchRow], str]
    key: Callable[[BenchRow], float | None] | None = None
    rank: int = 0
    number: bool = True


def columns(rows: Sequence[BenchRow]) -> list[Column]:
    """Those of which some row knows something, and those that every table has."""
    return [c for c in _ALL if c.name not in _OPTIONAL or any(c.cell(r) for r in rows)]


def merged(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The rows for people: of one target and variant that failed alike, one line for all."""
    shown: list[BenchRow] = []
    places: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = row.target, row.variant, str(row.failure or row.remark)
        if row.batch or not row.precision:
            shown.append(row)
        elif key in places:
            at = places[key]
            shown[at] = replace(shown[at], precision=f"{shown[at].precision}, {row.precision}")
        else:
            places[key] = len(shown)
            shown.append(row)
    return shown


def remark(row: BenchRow) -> str:
    """What a reader should know of a row, one line."""
    if row.failure is not None:
        return str(row.failure)
    if row.state == "timed":
        beyond = ""
        if not row.within:
            beyond = f"beyond {row.limit:g}, the usual error of {row.precision}"
        return "; ".join(filter(None, (row.remark, beyond)))
    return row.remark or row.state


def agreement(errors: Errors | None) -> str:
    """Top-1 agreement where the results look like logits, else the least cosine."""
    if errors is None:
        return ""
    if errors.agreement is not None and errors.samples < _FEW:
        return f"top-1 {round(errors.agreement * errors.samples)} of {errors.samples}"
    if errors.agreement is not None:
        said = f"{errors.agreement * 100:.4g}"
        return f"top-1 {'> 99.99' if said == '100' and errors.agreement < 1 else said} %"
    return f"cosine {errors.cosine:.5f}"


def figure(value: float) -> str:
    """Three significant digits, without an exponent where people read none."""
    if not math.isfinite(value):
        return "infinite" if math.isinf(value) else "NaN"
    if value == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{min(max(digits, 0), 6)}f}" if 1e-4 <= abs(value) < 1e9 else f"{value:.2e}"


def as_text(rows: Sequence[BenchRow]) -> list[str]:
    """The table as lines of plain text."""
    rows = merged(rows)
    shown = columns(rows)
    cells = [[c.name for c in shown], *([c.cell(r) for c in shown] for r in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(shown))]
    lines = []
    for line in cells:
        padded = [
            cell.rjust(width) if column.number else cell.ljust(width)
            for cell, width, column in zip(line, widths, shown, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _timing(name: str) -> Callable[[BenchRow], float | None]:
    def read(row: BenchRow) -> float | None:
        value: float | None = getattr(row.timing, name) if row.timing is not None else None
        return value

    return read


def _shown(
    read: Callable[[BenchRow], float | None], words: Callable[[float], str] = figure
) -> Callable[[BenchRow], str]:
    def cell(row: BenchRow) -> str:
        value = read(row)
        return "" if value is None else words(value)

    return cell


def _ms(value: float) -> str:
    return figure(value * 1e3)


def _bytes(value: float) -> str:
    return size(int(value))


def _interval(row: BenchRow) -> str:
    timing: Timing | None = row.timing
    return "" if timing is None else f"{_ms(timing.low)}-{_ms(timing.high)}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _error(row: BenchRow) -> float | None:
    return None if row.errors is None else row.errors.max


_P50, _P95, _P99 = _timing("p50"), _timing("p95"), _timing("p99")
_THROUGHPUT, _RATIO = _timing("throughput"), _timing("ratio")
_ALL = (
    Column("", lambda r: "*" if r.front else "", number=False),
    Column("target", lambda r: r.target, number=False),
    Column("precision", lambda r: r.precision, number=False),
    Column("variant", lambda r: r.variant, number=False),
    Column("batch", lambda r: str(r.batch or ""), lambda r: r.batch, rank=1),
    Column("p50 ms", _shown(_P50, _ms), _P50),
    Column("interval", _interval, _timing("low"), rank=7),
    Column("p95 ms", _shown(_P95, _ms), _P95, rank=6),
    Column("p99 ms", _shown(_P99, _ms), _P99, rank=5),
    Column("samples/s", _shown(_THROUGHPUT), _THROUGHPUT, rank=3),
    Column("x eager", _shown(_RATIO, _ratio), _RATIO, rank=2),
    Column("cold s", _shown(lambda r: r.cold_seconds), lambda r: r.cold_seconds, rank=4),
    Column(
        "artifact", _shown(lambda r: r.artifact_bytes, _bytes), lambda r: r.artifact_bytes, rank=3
    ),
    Column("package", _shown(lambda r: r.bytes, _bytes), lambda r: r.bytes, rank=4),
    Column("memory", _shown(lambda r: r.memory_bytes, _bytes), lambda r: r.memory_bytes, rank=3),
    Column("max error", _shown(_error), _error),
    Column("agreement", lambda r: agreement(r.errors), None, rank=4, number=False),
    Column("remark", remark, number=False),
)
# Empty on most machines or while nothing is wrong.
_OPTIONAL = ("", "variant", "remark")
