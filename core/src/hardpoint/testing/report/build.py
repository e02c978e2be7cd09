"""A report as plain data: what ``KIND-NAME.json`` holds and the page shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypedDict

from hardpoint.interfaces.kinds import Kind
from hardpoint.testing.check import LEVELS
from hardpoint.testing.journal import Result
from hardpoint.testing.report.facts import Facts
from hardpoint.testing.subject import Subject

REPORT_VERSION = 1


class LevelRow(TypedDict):
    """One level: reached only where everything of it, and below it, holds."""

    name: str
    reached: bool
    passed: int
    failed: int
    known: int
    skipped: int


class Report(Facts):
    """One run of the kit on one provider.

    ``level`` is the highest one reached, ``""`` where none is; ``known`` is how many failures stand
    in its way that the settings expect. ``passed``: nothing else failed.
    ``complete``: no check of the suite was left out. ``samples``: backends: ``quick`` or ``full``.
    """

    report: int
    level: str
    known: int
    passed: bool
    complete: bool
    samples: str
    seconds: float
    settings: dict[str, Any]
    levels: list[LevelRow]
    checks: list[dict[str, Any]]


def build_report(
    facts: Facts, subject: Subject, results: Sequence[Result], *, complete: bool
) -> Report:
    """The report of ``results`` on ``subject``."""
    order = LEVELS[subject.kind]
    ordered = sorted(results, key=lambda r: order.index(r.level))
    rows = levels(subject.kind, ordered)
    reached = [row["name"] for row in rows if row["reached"]]
    settings = subject.settings
    return Report(
        **facts,
        report=REPORT_VERSION,
        level=reached[-1] if reached else "",
        known=known_failures(ordered),
        passed=not any(r.outcome in ("failed", "crashed") for r in results),
        complete=complete,
        samples=subject.effort.samples if subject.kind == "backend" else "",
        seconds=round(sum(r.seconds for r in results), 1),
        settings={
            "precision": settings.precision,
            "config": dict(settings.config),
            "options": dict(settings.options),
            "expected_failures": dict(settings.expected_failures),
        },
        levels=rows,
        checks=[r.to_json() for r in ordered],
    )


def known_failures(results: Sequence[Result]) -> int:
    """Checks, and single operators, that fail as the settings expect."""
    cases = [
        case
        for result in results
        if result.name == "operators_are_right"
        for case in result.figures.get("operators", {}).get("cases", ())
    ]
    return sum(r.outcome == "known" for r in results) + sum("known" in case for case in cases)


def level_in_words(report: Report) -> str:
    """``"robust"``, or ``"robust, with 2 known failures"``; ``"none"``."""
    known = report["known"]
    words = f", with {known} known failure{'s' if known > 1 else ''}" if known else ""
    return (report["level"] or "none") + words


def levels(kind: Kind, results: Sequence[Result]) -> list[LevelRow]:
    """Each level of the kind, the lowest first, and whether it is reached.

    A level where everything was skipped is not reached: nothing was shown. Known failures do not
    stand in its way; whoever shows a level shows how many there are.
    """
    rows: list[LevelRow] = []
    holds = True
    for name in LEVELS[kind]:
        counts = Counter(r.outcome for r in results if r.level == name)
        failed = counts["failed"] + counts["crashed"]
        holds = holds and not failed and counts["passed"] > 0
        rows.append(
            LevelRow(
                name=name,
                reached=holds,
                passed=counts["passed"],
                failed=failed,
                known=counts["known"],
                skipped=counts["skipped"],
            )
        )
    return rows
