"""All rows with all columns, and how the figures were made."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from hardpoint.benching.columns import Column, columns, merged
from hardpoint.benching.page.legend import Legend
from hardpoint.benching.row import BenchRow
from hardpoint.page.markup import Markup, el, text

if TYPE_CHECKING:
    from hardpoint.benching.benchmark import Benchmark

# A reason is what somebody works from: it gets more room than a name.
_REASON = 1500


def section(bench: Benchmark, legend: Legend) -> list[Markup]:
    """The table, the notes, the machine."""
    rows = merged(bench.rows)
    shown = [c for c in columns(rows) if c.name]
    heads = [el("th", c.name, scope="col", cls="num" if c.number else None) for c in shown]
    heads.insert(0, el("th", "№", scope="col", cls="num"))
    body = [_row(row, shown, legend) for row in rows]
    whole = el("table", el("thead", el("tr", heads)), el("tbody", body), cls="rows")
    return [
        el("section", el("h2", "Every candidate"),
           el("p", f"Sorted by {bench.objective}, the best first; x eager is how many times as "
              "fast as eager PyTorch it is. Bold is on the front.", cls="note"),
           el("div", whole, cls="scroll tall", tabindex="0"), aria_label="Every candidate"),
        el("section", el("h2", "How this was measured"),
           [el("p", note, cls="note") for note in bench.notes], aria_label="Method"),
    ]  # fmt: skip


def _row(row: BenchRow, shown: list[Column], legend: Legend) -> Markup:
    number = legend.number(row)
    dot = el("span", "", cls=f"dot {legend.colour(row)}") if number else None
    kind = "failed" if row.failure or row.state == "not tried" else None
    if kind is None and not row.within:
        kind = "beyond"
    return el(
        "tr",
        el("td", dot, number, cls="num"),
        [_cell(row, column) for column in shown],
        cls="best" if row.front else kind,
        data_row=number or None,
    )


def _cell(row: BenchRow, column: Column) -> Markup:
    value = None if column.key is None else column.key(row)
    return el(
        "td",
        text(column.cell(row), _REASON),
        cls="num" if column.number else "remark" if column.name == "remark" else None,
        data_value=None if value is None else _sortable(value),
        title=_title(row) if column.name == "variant" else None,
    )


def _sortable(value: float) -> str:
    """A number as JavaScript reads it: its name of infinity is another, and NaN is not sorted."""
    return f"{value:.9g}" if math.isfinite(value) else "Infinity"


def _title(row: BenchRow) -> str | None:
    """The options behind the word."""
    return json.dumps({b: dict(o) for b, o in row.options.items()}) if row.options else None
