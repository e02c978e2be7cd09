"""A pattern for each target, so that lanes are told apart without colour too."""

from __future__ import annotations

from hardpoint.page.markup import Markup, el
from hardpoint.planning.page.words import Shown

# Marks in a tile of 8 by 8, drawn over the target's colour; the first is plain.
_MARKS = (
    "",
    "M-2 2l4 -4M0 8l8 -8M6 10l4 -4",
    "M0 4h8",
    "M2 2h2v2h-2zM6 6h2v2h-2z",
    "M4 0v8",
    "M-2 6l4 4M0 0l8 8M6 -2l4 4",
    "M0 4h8M4 0v8",
)


def definitions(shown: Shown) -> Markup:
    """The patterns of all targets, and the arrowhead."""
    patterns = []
    for target, number in shown.number.items():
        tile = [el("rect", width=8, height=8, cls="fill")]
        tile.append(el("path", d=_MARKS[number % len(_MARKS)], cls="mark"))
        patterns.append(
            el("pattern", tile, id=f"p{number}", cls=shown.colour(target), width=8, height=8,
               patternUnits="userSpaceOnUse")
        )  # fmt: skip
    head = el("path", d="M0 0L8 4L0 8z")
    arrow = el("marker", head, id="arrow", viewBox="0 0 8 8", refX=7, refY=4, markerWidth=8,
               markerHeight=8, markerUnits="userSpaceOnUse", orient="auto")  # fmt: skip
    return el("defs", patterns, arrow)
