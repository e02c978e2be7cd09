"""The checks: those that failed with their reasons, those known to fail, and all of them."""

from __future__ import annotations

from typing import Any

from hardpoint.page.markup import Markup, el
from hardpoint.testing.report.build import Report
from hardpoint.testing.report.page.operators import NAME, counts_of
from hardpoint.testing.report.page.words import badge, pairs, plural, reason, seconds, title


def failures(report: Report) -> Markup | None:
    """Every check that failed, with what its author needs to know."""
    failed = [check for check in report["checks"] if check["outcome"] in ("failed", "crashed")]
    if not failed:
        return None
    return el(
        "section", el("h2", "What fails"), [_failure(report, check) for check in failed],
        aria_label="What fails",
    )  # fmt: skip


def _failure(report: Report, check: dict[str, Any]) -> Markup:
    return el(
        "article",
        el("p", badge(check["outcome"]), " ", el("span", check["level"], cls="dim"), cls="over"),
        el("h3", title(check["title"])),
        el("p", reason(check["reason"]), cls="why"),
        el("p", f"hardpoint check {report['provider']} --checks {check['name']}", cls="again mono"),
        cls="failure",
        id=f"failed-{check['name']}",
    )


def known(report: Report) -> Markup | None:
    """Failures that the settings expect: those of checks, and those of operators."""
    expected = report["settings"]["expected_failures"]
    if not expected:
        return None
    rows = [el("li", el("code", name), el("p", reason(why))) for name, why in expected.items()]
    note = "Expected in conformance.toml. One that does not fail any more fails the run."
    return el(
        "section", el("h2", "Known failures"), el("p", note, cls="note"),
        el("ul", rows, cls="known"), aria_label="Known failures",
    )  # fmt: skip


def table(report: Report) -> Markup:
    """A row for each check, by level."""
    heads = el("thead", el("tr", [el("th", h, scope="col") for h in ("outcome", "check", "took")]))
    bodies = []
    for row in report["levels"]:
        mine = [check for check in report["checks"] if check["level"] == row["name"]]
        if mine:
            named = f"{row['name']} ({plural(len(mine), 'check')})"
            bodies.append(
                el("tbody",
                   el("tr", el("th", named, scope="rowgroup", colspan="3"), cls="level"),
                   [_row(check) for check in mine])
            )  # fmt: skip
    return el(
        "section", el("h2", "Every check"), el("table", heads, bodies, cls="checks"),
        aria_label="Every check",
    )  # fmt: skip


def _row(check: dict[str, Any]) -> Markup:
    said = check["reason"] if check["outcome"] in ("skipped", "known") else ""
    figures = _figures(check)
    return el(
        "tr",
        el("td", badge(check["outcome"])),
        el(
            "td",
            el("p", title(check["title"])),
            el("p", el("code", check["name"]), cls="dim"),
            el("p", reason(said), cls="why dim") if said else None,
            el("details", el("summary", plural(len(figures), "figure")), pairs(figures))
            if figures
            else None,
        ),
        el("td", seconds(check["seconds"]), cls="num"),
    )


def _figures(check: dict[str, Any]) -> dict[str, Any]:
    """What the check measured; the samples of operators have a section of their own."""
    figures: dict[str, Any] = dict(check["figures"])
    counts = counts_of(check)
    if counts is not None:
        del figures[NAME]
        figures |= counts
    return figures
