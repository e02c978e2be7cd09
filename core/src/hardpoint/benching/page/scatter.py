"""Latency against error at one batch size, with the Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from hardpoint.benching.columns import figure
from hardpoint.benching.page import axes
from hardpoint.benching.page.legend import Legend
from hardpoint.benching.row import BenchRow
from hardpoint.page.markup import Markup, el

_RADIUS = 6.0
_CHARACTER = 7.0
_LINE = 12.0


def draw(rows: Sequence[BenchRow], batch: int, legend: Legend) -> list[Markup]:
    """The plot, under a heading that names the batch."""
    shown = [
        r for r in rows
        if r.batch == batch and r.timing and not r.failure and _error(r) is not None
    ]  # fmt: skip
    if not shown:
        return [el("p", f"Nothing that can be compared was timed at batch {batch}.", cls="note")]
    errors = [e for e in map(_error, shown) if e]
    floor = min(errors, default=1e-6) / 10  # where an error of none stands: a log axis has no zero
    places = [(r, r.timing.p50 * 1e3, _error(r) or floor) for r in shown if r.timing]
    x = axes.horizontal(ms for _, ms, _ in places)
    y = axes.vertical(error for _, _, error in places)
    points = [(r, x(ms), y(error)) for r, ms, error in places]
    parts = axes.frame(x, y, "p50, milliseconds", "max error")
    if any(not _error(r) for r in shown):
        at = y(floor)
        parts.append(el("line", x1=x.start, x2=x.end, y1=at, y2=at, cls="none"))
        parts.append(el("text", "exact", x=x.end, y=at - 5, cls="tick end"))
    front = sorted((px, py) for r, px, py in points if r.front)
    if len(front) > 1:
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in _steps(front))
        parts.append(el("polyline", points=path, cls="front"))
    taken = [(px - _RADIUS, py - _RADIUS, px + _RADIUS, py + _RADIUS) for _, px, py in points]
    for row, px, py in points:
        parts.append(_point(row, px, py, legend, taken))
    name = f"Latency against error at batch {batch}"
    return [el("h3", f"batch {batch}"), axes.plot(parts, name)]


def _error(row: BenchRow) -> float | None:
    """``None``: it cannot be shown."""
    if row.eager:
        return 0.0
    if row.errors is None or not math.isfinite(row.errors.max):
        return None
    return row.errors.max


def _steps(front: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase: between two points nothing is known to be better than the left one."""
    path = [front[0]]
    for (_, above), (px, py) in pairwise(front):
        path += [(px, above), (px, py)]
    return path


def _point(
    row: BenchRow, px: float, py: float, legend: Legend,
    taken: list[tuple[float, float, float, float]],
) -> Markup:  # fmt: skip
    number = legend.number(row)
    assert row.timing is not None
    error = _error(row)
    said = f"{number}: {row.label}, {row.timing.p50 * 1e3:.4g} ms, error {figure(error or 0.0)}"
    shape = "mark" if row.within else "mark hollow"
    width = _CHARACTER * len(number)
    left, top = _free(px, py, width, taken)
    taken.append((left, top, left + width, top + _LINE))
    return el(
        "g",
        el("title", said),
        el("circle", cx=px, cy=py, r=_RADIUS + 2 * row.front, cls=shape),
        el("text", number, x=left, y=top + _LINE - 2, cls="number"),
        cls=f"point {legend.colour(row)}",
        data_row=number,
    )


def _free(
    px: float, py: float, width: float, taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float]:
    """Where a number beside the point covers the least that is there."""
    away = _RADIUS + 5
    tried = [(px + away, py - _LINE / 2), (px - away - width, py - _LINE / 2),
             (px - width / 2, py - away - _LINE), (px - width / 2, py + away),
             (px + away, py - away - _LINE / 2), (px + away, py + away - _LINE / 2),
             (px - away - width, py - away - _LINE / 2)]  # fmt: skip

    def covered(place: tuple[float, float]) -> int:
        left, top = place
        return sum(
            left < box[2] and left + width > box[0] and top < box[3] and top + _LINE > box[1]
            for box in taken
        )

    return min(tried, key=covered)
