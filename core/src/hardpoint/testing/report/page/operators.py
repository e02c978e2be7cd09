"""A backend's operators, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hardpoint.page.markup import Markup, el, text
from hardpoint.testing.report.build import Report
from hardpoint.testing.report.page.words import plural, reason

# The figure of a check that holds what this section shows, if it also holds CASES.
NAME = "operators"
CASES = "cases"
# More would make the page slow; the JSON beside it has all.
ROWS = 6000
_LONGEST = 600

# state -> (words, class), the order of the bar and of the table: what is wrong stands first.
STATES: Final[Mapping[str, tuple[str, str]]] = {
    "wrong": ("wrong", "bad"),
    "raised": ("raised", "bad"),
    "crashed": ("crashed", "bad"),
    "hung": ("hung", "bad"),
    "refused": ("claimed, then refused", "warn"),
    "right": ("right", "good"),
    "unclaimed": ("not claimed", "none"),
    "not_exportable": ("not exportable by PyTorch", "out"),
    "left_out": ("left out", "out"),
}
_UNKNOWN = ("", "out")
_BAR = 1000.0
_LEAST = 6.0  # a part of the bar that anybody can see


def counts_of(check: Mapping[str, Any]) -> dict[str, Any] | None:
    """The counts beside the samples that a check tells of; ``None``: it tells of none."""
    found = check["figures"].get(NAME)
    if not isinstance(found, dict) or not isinstance(found.get(CASES), list):
        return None
    return {name: value for name, value in found.items() if name not in (CASES, "notes")}


def section(report: Report) -> Markup | None:
    """Counts as a bar, and a table of all samples."""
    for check in report["checks"]:
        if counts_of(check) is not None:
            found = check["figures"][NAME]
            return el(
                "section",
                el("h2", "Operators"),
                el("p", _sentence(found), cls="note"),
                [el("p", reason(str(note)), cls="note") for note in found.get("notes", ())],
                _bar(found[CASES]),
                _table(found[CASES]),
                aria_label="Operators",
            )
    return None


def _sentence(found: Mapping[str, Any]) -> str:
    claimed, run, right = (int(found.get(name, 0)) for name in ("claimed", "run", "right"))
    said = f"Of {plural(run, 'sample')} of PyTorch's operator database it claims {claimed:,}"
    said += f", and gets {right:,} of these right."
    if "operators_claimed" in found:
        said += (
            f" These are samples of {plural(int(found['operators_claimed']), 'operator')}; "
            f"{int(found.get('operators_right', 0)):,} are right in every one."
        )
    return said


def _bar(cases: list[dict[str, str]]) -> list[Markup]:
    counts = {state: sum(case["state"] == state for case in cases) for state in STATES}
    there = {state: count for state, count in counts.items() if count}
    widths = {s: max(_LEAST, _BAR * count / max(1, len(cases))) for s, count in there.items()}
    scale = _BAR / (sum(widths.values()) or 1)
    parts, legend, left = [], [], 0.0
    for state, count in there.items():
        words, colour = STATES[state]
        width = widths[state] * scale
        parts.append(
            el("rect", el("title", f"{count:,} {words}"), x=left, width=width, height=18,
               cls=colour)
        )  # fmt: skip
        left += width
        legend.append(
            el("li", el("span", "", cls=f"dot {colour}"), el("b", f"{count:,}"), " ", words)
        )
    bar = el("svg", parts, cls="bar", viewBox=f"0 0 {_BAR:.0f} 18", preserveAspectRatio="none",
             role="img", aria_label="samples by state")  # fmt: skip
    return [bar, el("ul", legend, cls="legend")]


def _table(cases: list[dict[str, str]]) -> list[Markup]:
    order = {state: number for number, state in enumerate(STATES)}
    ordered = sorted(
        cases, key=lambda c: (order.get(c["state"], len(order)), c["op"], c["variant"], c["dtype"])
    )
    shown = ordered[:ROWS]
    heads = [el("th", h, scope="col") for h in ("operator", "dtype", "state", "reason")]
    whole = el(
        "table", el("thead", el("tr", heads)), el("tbody", [_row(c) for c in shown]), cls="cases"
    )
    parts = [
        _filter({case["state"] for case in shown}),
        el("div", whole, cls="scroll tall", tabindex="0"),
    ]
    if len(shown) < len(ordered):
        said = f"The first {ROWS:,} of {len(ordered):,} samples; the JSON file has all."
        parts.append(el("p", said, cls="note"))
    return parts


def _filter(states: set[str]) -> Markup:
    """Shown by the script only: without it nothing would happen."""
    options = [el("option", "every state", value="")]
    options += [el("option", words, value=s) for s, (words, _) in STATES.items() if s in states]
    return el(
        "form",
        el("input", id="filter", type="search", autocomplete="off", spellcheck="false",
           placeholder="filter samples: an operator, a dtype, a reason",
           aria_label="filter samples"),
        el("select", options, id="state", aria_label="state"),
        el("output", "", id="found", cls="found"),
        id="tools", cls="tools", hidden=True, role="search",
    )  # fmt: skip


def _row(case: Mapping[str, str]) -> Markup:
    words, colour = STATES.get(case["state"], _UNKNOWN)
    named = [el("code", case["op"])]
    if case["variant"]:
        named.append(el("span", f" {case['variant']}", cls="dim"))
    said = [text(case["reason"], _LONGEST)]
    if case.get("known"):
        said.append(el("p", "known: ", reason(case["known"])))
    return el(
        "tr",
        el("th", named, scope="row"),
        el("td", case["dtype"]),
        el("td", words or case["state"], cls=f"state {colour}"),
        el("td", said, cls="lines"),
        data_state=case["state"],
    )
