"""Rows compared with each other. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from hardpoint.benching.row import BenchRow
from hardpoint.interfaces.partitioner import Objective


def arrange(rows: Sequence[BenchRow], objective: Objective) -> list[BenchRow]:
    """The best first at each batch, with the fronts marked.

    Below what is right stands what is beyond its limit, then what failed, then what was not tried.
    """
    fronts = {id(row) for batch in {r.batch for r in rows} for row in front(rows, batch)}
    marked = [replace(r, front=id(r) in fronts) for r in rows]
    return sorted(marked, key=lambda r: (_group(r), r.batch, _cost(r, objective)))


def front(rows: Sequence[BenchRow], batch: int) -> list[BenchRow]:
    """The Pareto front of latency and error at ``batch``: nothing is better in one and as good in
    the other. Eager PyTorch takes part, with no error; what is beyond its limit does not.
    """
    racing = [r for r in rows if r.batch == batch and r.timing and r.within and not r.failure]
    return [r for r in racing if not any(_dominates(other, r) for other in racing)]


def _dominates(one: BenchRow, other: BenchRow) -> bool:
    mine, theirs = _point(one), _point(other)
    return mine != theirs and mine[0] <= theirs[0] and mine[1] <= theirs[1]


def _point(row: BenchRow) -> tuple[float, float]:
    assert row.timing is not None
    error = 0.0 if row.eager else math.inf if row.errors is None else row.errors.max
    return row.timing.p50, error


def _group(row: BenchRow) -> int:
    if row.failure is not None:
        # What came farthest stands first: one that ran, then one that was tried, then the rest.
        return 3 + ("not whole", "left out").count(row.failure.kind)
    if row.state == "not tried":
        return 5
    return 0 if row.within else 1


def _cost(row: BenchRow, objective: Objective) -> float:
    """What the objective makes small; what is not known comes last."""
    if objective == "size":
        return math.inf if row.bytes is None else row.bytes
    if objective == "memory":
        return math.inf if row.memory_bytes is None else row.memory_bytes
    if row.timing is None:
        return math.inf
    return -row.timing.throughput if objective == "throughput" else row.timing.p50
