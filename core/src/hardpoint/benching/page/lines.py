"""Latency by batch: a line a candidate; nothing where there is one batch only."""

from __future__ import annotations

from collections.abc import Sequence

from hardpoint.benching.page import axes
from hardpoint.benching.page.legend import Legend
from hardpoint.benching.row import BenchRow
from hardpoint.page.markup import Markup, el


def section(rows: Sequence[BenchRow], legend: Legend) -> Markup | None:
    """The plot with its heading."""
    timed = [r for r in rows if r.timing and not r.failure]
    batches = sorted({r.batch for r in timed})
    if len(batches) < 2:
        return None
    x = axes.horizontal(map(float, batches))
    y = axes.vertical(r.timing.p50 * 1e3 for r in timed if r.timing)
    parts = axes.frame(x, y, "batch, samples a call", "p50, milliseconds", x_ticks=batches)
    for label in dict.fromkeys(r.label for r in timed):
        mine = sorted((r for r in timed if r.label == label), key=lambda r: r.batch)
        parts.append(_line(mine, x, y, legend))
    return el(
        "section",
        el("h2", "Latency by batch"),
        el("p", "A line that rises as steeply as the batch gains nothing by it.", cls="note"),
        axes.plot(parts, "Latency by batch"),
        aria_label="Latency by batch",
    )


def _line(rows: Sequence[BenchRow], x: axes.Scale, y: axes.Scale, legend: Legend) -> Markup:
    places = [(x(r.batch), y(r.timing.p50 * 1e3)) for r in rows if r.timing]
    number = legend.number(rows[0])
    right, top = places[-1]
    return el(
        "g",
        el("title", f"{number}: {rows[0].label}"),
        el("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in places), cls="series"),
        [el("circle", cx=px, cy=py, r=4.0, cls="mark") for px, py in places],
        el("text", number, x=right + 8, y=top + 4, cls="number"),
        cls=f"point {legend.colour(rows[0])}",
        data_row=number,
    )
