"""The plan: which segment runs where, in which order, what crosses, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hardpoint.planning.data import PlanData
from hardpoint.planning.explain import describe, render_reasons, render_table
from hardpoint.planning.html import save_page


@dataclass(frozen=True, eq=False)
class Plan(PlanData):
    """What :func:`hardpoint.plan` gives. ``print(plan)`` shows the table.

    Its facts are those of :class:`hardpoint.planning.data.PlanData`: ``program``, ``segments`` (in
    running order), ``candidates``, ``objective``, ``partitioner``, ``skipped``, ``reasons``.
    """

    def __str__(self) -> str:
        return render_table(self)

    def explain(self) -> str:
        """In words: for each segment what runs there, and why not on a preferred target."""
        return render_reasons(self)

    def to_json(self) -> dict[str, object]:
        """JSON-serializable facts; stored in packages and printed by ``--json``."""
        return describe(self)

    def save_html(self, path: str | Path) -> Path:
        """Write a self-contained page that draws the plan. Returns its path."""
        return save_page(self, Path(path))
