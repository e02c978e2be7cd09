"""Draw a plan as SVG: a lane for each target, a box for each segment, a line for what crosses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hardpoint.page.markup import Markup, el, join
from hardpoint.planning.data import Segment
from hardpoint.planning.page import boxes
from hardpoint.planning.page.drawing import Box
from hardpoint.planning.page.flow import Flow, Link, gathered
from hardpoint.planning.page.layout import Layout, place
from hardpoint.planning.page.patterns import definitions
from hardpoint.planning.page.words import Shown, plural
from hardpoint.units import size

# Above this many segments boxes shrink to one line; above the next, only the first are drawn.
COMPACT_ABOVE = 40
DRAWN = 300
PORTS = 6
_GAP, _COMPACT_GAP, _HEADING = 40.0, 28.0, 58.0


def draw(shown: Shown) -> Markup:
    """The picture, below a sentence on whatever it leaves out."""
    segments = shown.plan.segments[:DRAWN]
    compact = len(shown.plan.segments) > COMPACT_ABOVE
    flow = _visible(gathered(shown.flow, PORTS), {s.id for s in segments})
    lanes = {target: i for i, target in enumerate(dict.fromkeys(s.target for s in segments))}
    layout = place(
        _boxes(shown, flow, segments, compact),
        [(link.source, link.target) for link in flow.links],
        len(lanes),
        gap=_COMPACT_GAP if compact else _GAP,
        heading=_HEADING,
    )
    labels = {p.id: p.label for p in flow.sources + flow.sinks} | {s.id: s.id for s in segments}
    first = {s.target: s for s in reversed(segments)}
    drawing = el(
        "svg",
        definitions(shown),
        el("g", [boxes.lane(shown, first[t], layout, i) for t, i in lanes.items()], cls="lanes"),
        el("g", _lines(flow, layout, labels), cls="lines"),
        el("g", [boxes.pill(flow, p, layout.boxes[p.id]) for p in flow.sources + flow.sinks]),
        el("g", _segments(shown, flow, segments, layout, labels, compact)),
        xmlns="http://www.w3.org/2000/svg", cls="picture", role="group",
        viewBox=f"0 0 {layout.width:.0f} {layout.height:.0f}",
        width=round(layout.width), height=round(layout.height),
        aria_label=f"{plural(len(segments), 'segment')} in running order, a lane for each target",
    )  # fmt: skip
    words = el("p", " ".join(_left_out(shown, flow, compact)), cls="note")
    return join([words, el("div", el("div", drawing, cls="scroll", tabindex="0"), cls="board")])


def _visible(flow: Flow, ids: set[str]) -> Flow:
    """Without links to segments that are not drawn, and without results that only they give."""
    ends = ids | {p.id for p in flow.sources + flow.sinks}
    links = tuple(k for k in flow.links if k.source in ends and k.target in ends)
    given = {k.target for k in links}
    return Flow(flow.values, flow.sources, tuple(p for p in flow.sinks if p.id in given), links)


def _boxes(shown: Shown, flow: Flow, segments: Sequence[Segment], compact: bool) -> list[Box]:
    incoming = _incoming(flow)
    lanes = {target: i for i, target in enumerate(dict.fromkeys(s.target for s in segments))}
    made = [Box(p.id, None, boxes.PORT_WIDTH, boxes.PORT_HEIGHT) for p in flow.sources]
    for s in segments:
        if compact:
            made.append(Box(s.id, lanes[s.target], boxes.COMPACT_WIDTH, boxes.COMPACT_HEIGHT))
        else:
            height = boxes.height(shown, s, incoming.get(s.id, ()))
            made.append(Box(s.id, lanes[s.target], boxes.WIDTH, height))
    return made + [Box(p.id, None, boxes.PORT_WIDTH, boxes.PORT_HEIGHT) for p in flow.sinks]


def _incoming(flow: Flow) -> dict[str, list[Link]]:
    found: dict[str, list[Link]] = {}
    for link in flow.links:
        found.setdefault(link.target, []).append(link)
    return found


def _segments(
    shown: Shown,
    flow: Flow,
    segments: Sequence[Segment],
    layout: Layout,
    labels: Mapping[str, str],
    compact: bool,
) -> list[Markup]:
    if compact:
        return [boxes.compact(shown, s, layout.boxes[s.id]) for s in segments]
    arrives = {(line.source, line.target): line.arrives for line in layout.lines}
    incoming = _incoming(flow)
    for links in incoming.values():
        links.sort(key=lambda k: arrives[k.source, k.target])
    return [
        boxes.full(shown, s, layout.boxes[s.id], incoming.get(s.id, ()), labels) for s in segments
    ]


def _lines(flow: Flow, layout: Layout, labels: Mapping[str, str]) -> list[Markup]:
    drawn = []
    for link, line in zip(flow.links, layout.lines, strict=True):
        # Four bytes are thin, a gigabyte is thick.
        width = 1 + max(0.0, math.log2(max(4, link.nbytes)) - 2) / 8
        ends = f"{labels[link.source]} → {labels[link.target]}, {size(link.nbytes)}"
        names = boxes.tensors(flow, [v.name for v in link.values])
        drawn.append(
            el("path", el("title", f"{ends}\n{names}"), d=line.path, stroke_width=width,
               marker_end="url(#arrow)", data_from=link.source, data_to=link.target)
        )  # fmt: skip
    return drawn


def _left_out(shown: Shown, flow: Flow, compact: bool) -> list[str]:
    """How to read the picture, what it does not show, and where that stands instead."""
    said = [
        "Time runs downwards. A line is what one part hands to another; thicker is more bytes.",
        "Bars are shares of the FLOPs." if shown.flops else "Bars are shares of the operations.",
    ]
    total = len(shown.plan.segments)
    if total > DRAWN:
        said.append(
            f"Only the first {DRAWN} of {total:,} segments are drawn; the tables below have all."
        )
    if compact:
        said[1] = (
            f"With more than {COMPACT_ABOVE} segments, boxes are one line high: point at a line, "
            "or open a segment below, to see the tensors."
        )
    if any(len(p.values) > 1 for p in flow.sources + flow.sinks):
        said.append("Inputs or outputs of one kind are drawn as one; the segments below name each.")
    return said
