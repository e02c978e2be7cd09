"""What was tried, how far it got, and on what."""

from __future__ import annotations

from collections import Counter

from hardpoint.page.markup import Markup, el
from hardpoint.testing.report.build import LevelRow, Report, level_in_words
from hardpoint.testing.report.page.words import DASH, pairs, plural, reason, seconds


def head(report: Report) -> Markup:
    """The provider, the verdict in a sentence, the totals, and what a reader must know first."""
    origin = f"{report['distribution']} {report['version']}".strip()
    return el(
        "header",
        el("p", "hardpoint · conformance", cls="kicker"),
        el("h1", report["provider"]),
        el("p", "from ", el("b", origin or "this process"), ": ", _summary(report), cls="by"),
        _verdict(report),
        _notices(report),
        _tiles(report),
    )


def _summary(report: Report) -> str:
    return str(report["info"].get("summary") or "it does not say what it is")


def _verdict(report: Report) -> Markup:
    level, failed = report["level"], _counts(report)["failed"]
    said = f"Reaches {level_in_words(report)}" if level else "Reaches no level"
    detail = f"{plural(failed, 'check')} failed" if failed else "nothing failed"
    return el("p", el("b", said), ": ", detail, cls=f"verdict {'good' if not failed else 'bad'}")


def _notices(report: Report) -> list[Markup]:
    notices = []
    if report["unavailable"]:
        notices.append(f"It cannot work on this machine: {report['unavailable']}")
    if not report["complete"]:
        notices.append("Only a part of the suite was run; the levels count what was.")
    unverified = report["info"].get("unverified")
    if unverified:
        notices.append(f"Not proven on real hardware: {unverified}")
    return [el("p", reason(notice), cls="notice") for notice in notices]


def _counts(report: Report) -> Counter[str]:
    counts = Counter(check["outcome"] for check in report["checks"])
    counts["failed"] += counts.pop("crashed", 0)
    return counts


def _tiles(report: Report) -> Markup:
    counts = _counts(report)
    figures = [
        (f"{counts['passed']:,}", "passed"),
        (f"{counts['failed']:,}", "failed"),
        (f"{counts['known']:,}", "known failures"),
        (f"{counts['skipped']:,}", "skipped"),
        (seconds(report["seconds"]), "in all"),
    ]
    return el(
        "ul", [el("li", el("b", f), " ", el("span", what)) for f, what in figures], cls="tiles"
    )


def levels(report: Report) -> Markup:
    """The levels as steps; each says in words whether it is reached, and if not, why."""
    return el(
        "section",
        el("h2", "Levels"),
        el("ol", [_step(row) for row in report["levels"]], cls="ladder"),
        aria_label="Levels",
    )


def _step(row: LevelRow) -> Markup:
    mark, said, colour = _standing(row)
    counts = [
        f"{row['passed']:,} passed",
        *([f"{row['failed']:,} failed"] if row["failed"] else []),
        *([plural(row["known"], "known failure")] if row["known"] else []),
        *([f"{row['skipped']:,} skipped"] if row["skipped"] else []),
    ]
    return el(
        "li",
        el("span", mark, cls="mark", aria_hidden="true"),
        el("div", el("b", row["name"]), el("p", said), el("p", " · ".join(counts), cls="dim")),
        cls=colour,
    )


def _standing(row: LevelRow) -> tuple[str, str, str]:
    """Mark, words, colour."""
    if row["reached"]:
        return "✓", "reached", "good"
    if row["failed"]:
        return "✗", f"not reached: {plural(row['failed'], 'check')} failed", "bad"
    if row["passed"]:
        return DASH, "not reached: a level below is not", "none"
    if row["skipped"] or row["known"]:
        return DASH, "not reached: no check of it passed", "none"
    return DASH, "not tried", "none"


def facts(report: Report) -> Markup:
    """What it was tried on, and how it was set up."""
    settings = {name: value for name, value in report["settings"].items() if value}
    said = {"samples": report["samples"]} if report["samples"] else {}
    info = {name: value for name, value in report["info"].items() if value not in ("", {}, [], ())}
    parts = {
        "What it declares": info,
        "What it was tried on": {**report["environment"], **said},
        "Settings of the kit": settings or {"settings": "none: everything by default"},
    }
    return el(
        "section",
        el("h2", "Facts"),
        el("div", [el("div", el("h3", name), pairs(part)) for name, part in parts.items()],
           cls="columns"),
        aria_label="Facts",
    )  # fmt: skip
