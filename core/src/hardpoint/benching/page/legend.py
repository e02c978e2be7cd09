"""Numbers of rows, colours of targets, and the key to both."""

from __future__ import annotations

from collections.abc import Sequence

from hardpoint.benching.row import BenchRow
from hardpoint.page.markup import Markup, el

# Classes c0 ... of page.css; with more targets they come again, and the numbers tell them apart.
COLOURS = 8


class Legend:
    """Who has which number and colour.

    :param rows: in the order of the table. Rows of one candidate share a number.
    """

    def __init__(self, rows: Sequence[BenchRow]) -> None:
        labels = dict.fromkeys(r.label for r in rows if r.timing)
        self._numbers = {label: n for n, label in enumerate(labels, 1)}
        targets = sorted({r.target for r in rows if r.timing and not r.eager})
        self._colours = {target: f"c{n % COLOURS}" for n, target in enumerate(targets)}

    def number(self, row: BenchRow) -> str:
        """Its number; ``""`` where it has no figures."""
        return str(self._numbers.get(row.label, ""))

    def colour(self, row: BenchRow) -> str:
        """The class of its colour."""
        return self._colours.get(row.target, "eager")

    def list(self) -> Markup:
        """Targets and their colours."""
        items = [
            el("li", el("span", "", cls=f"dot {colour}"), target)
            for target, colour in self._colours.items()
        ]
        items.append(el("li", el("span", "", cls="dot eager"), "eager PyTorch"))
        return el("ul", items, cls="legend")
