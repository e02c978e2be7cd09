"""A benchmark as CSV: a line a row, plain SI units, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from hardpoint.benching.row import BenchRow

if TYPE_CHECKING:
    from hardpoint.benching.benchmark import Benchmark

_TIMING = ("p50", "low", "high", "confidence", "p95", "p99", "best", "throughput", "ratio",
           "rounds", "calls", "callers")  # fmt: skip
_ERRORS = ("max", "mean", "cosine", "agreement")
# Field of a row -> its head. What a unit has says which.
_PLAIN = {
    "target": "target", "precision": "precision", "variant": "variant", "batch": "batch",
    "state": "state", "front": "on_front", "compile_seconds": "compile_s",
    "cold_seconds": "cold_s", "process_seconds": "process_s", "bytes": "package_bytes",
    "artifact_bytes": "artifact_bytes",
    "memory_bytes": "memory_bytes", "limit": "error_limit",
}  # fmt: skip
_UNITS = {"p50": "p50_s", "low": "p50_low_s", "high": "p50_high_s", "p95": "p95_s", "p99": "p99_s",
          "best": "best_s", "throughput": "samples_per_s", "ratio": "eager_over_this",
          "max": "max_error", "mean": "mean_error", "agreement": "top1_agreement"}  # fmt: skip
# A spreadsheet takes a cell that begins so for a formula, and names come from plugins.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_HEADS = ("program", *_PLAIN.values(), *(_UNITS.get(name, name) for name in (*_TIMING, *_ERRORS)),
          "failure", "reason", "remark")  # fmt: skip


def is_ours(path: Path) -> bool:
    """Whether a file begins as :func:`render` begins one: else it is somebody's data."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return file.readline(4096).startswith(",".join(_HEADS[:5]))
    except (OSError, UnicodeDecodeError):
        return False


def render(bench: Benchmark) -> str:
    """The text of the file, with a head line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADS)
    for row in bench.rows:
        writer.writerow([_plain(cell) for cell in (bench.program, *_cells(row))])
    return out.getvalue()


def _cells(row: BenchRow) -> list[object]:
    cells = [getattr(row, name) for name in _PLAIN]
    cells += [None if row.timing is None else getattr(row.timing, name) for name in _TIMING]
    cells += [None if row.errors is None else getattr(row.errors, name) for name in _ERRORS]
    failure = row.failure
    return [*cells, failure and failure.kind, failure and failure.reason, row.remark]


def _plain(cell: object) -> object:
    if cell is None:
        return ""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell
