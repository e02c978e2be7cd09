"""Outcomes and figures, as people read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from hardpoint.page.markup import Markup, clip, el, join, text

# Reasons are what a vendor works from: they get more room than names.
LONGEST_REASON = 6000
# As many members of a list are written out.
_LISTED = 12

DASH: Final = "\N{EN DASH}"
# outcome -> (mark, words, class). Colour never stands alone: the mark and the words say the same.
OUTCOMES: Final[Mapping[str, tuple[str, str, str]]] = {
    "passed": ("✓", "passed", "good"),
    "failed": ("✗", "failed", "bad"),
    "crashed": ("✗", "crashed", "bad"),
    "known": ("!", "known failure", "warn"),
    "skipped": (DASH, "skipped", "none"),
}


def badge(outcome: str) -> Markup:
    """Mark, words and colour of an outcome."""
    mark, words, colour = OUTCOMES[outcome]
    return el("span", el("span", mark, aria_hidden="true"), " ", words, cls=f"badge {colour}")


def reason(raw: str) -> Markup:
    """A reason, with its line breaks, as far as anybody reads."""
    return text(raw, LONGEST_REASON)


def title(raw: str) -> Markup:
    """A check's title, with what stands in double backquotes as code."""
    parts = raw.split("``")
    return join([el("code", part) if number % 2 else part for number, part in enumerate(parts)])


def plural(count: int, noun: str) -> str:
    """``1 check``, ``2 checks``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds(amount: float) -> str:
    """``0.12 s``, ``3 min 20 s``."""
    if amount < 10:
        return f"{amount:.2f} s"
    minutes, rest = divmod(round(amount), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def figure(value: Any) -> str:
    """A figure of a check: whatever JSON holds."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if value is None or isinstance(value, str):
        return value or "none"
    if isinstance(value, (list, tuple)) and not any(isinstance(v, (list, dict)) for v in value):
        return _listed([figure(each) for each in value])
    return clip(json.dumps(value, default=str), LONGEST_REASON)


def _listed(members: list[str]) -> str:
    rest = len(members) - _LISTED
    shown = members[:_LISTED] + ([f"and {rest:,} more"] if rest > 0 else [])
    return ", ".join(shown) or "none"


def pairs(figures: Mapping[str, Any]) -> Markup:
    """Names and values, one below the other."""
    rows = [
        [el("dt", name.replace("_", " ")), el("dd", text(figure(value), LONGEST_REASON))]
        for name, value in figures.items()
    ]
    return el("dl", rows, cls="pairs")
