"""Draw a plan as SVG: a lane for each target, a box for each segment, a line for what crosses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hardpoint.planning.explain import count, short, size
from hardpoint.planning.page.drawing import Box
from hardpoint.planning.page.flow import Flow, Link, Port, gathered
from hardpoint.planning.page.layout import Layout, place
from hardpoint.planning.page.markup import Markup, clip, el
from hardpoint.planning.page.patterns import definitions
from hardpoint.planning.page.words import Shown, operators, percent, plural, times, tiny
from hardpoint.planning.plan import Segment

# Above this many segments boxes shrink to one line; above the next, only the first are drawn.
COMPACT_ABOVE = 40
DRAWN = 300
PORTS = 6
ROWS = 3
LISTED = 6
_WIDTH, _COMPACT_WIDTH, _PORT_WIDTH = 272.0, 176.0, 172.0
_ROW, _LINE = 17.0, 16.0
_HEADING = 58.0


def draw(shown: Shown) -> Markup:
    """The picture, with a sentence on whatever it leaves out."""
    segments = shown.plan.segments[:DRAWN]
    compact = len(shown.plan.segments) > COMPACT_ABOVE
    flow = _visible(gathered(shown.flow, PORTS), {s.id for s in segments})
    incoming: dict[str, list[Link]] = {}
    for link in flow.links:
        incoming.setdefault(link.target, []).append(link)
    labels = {p.id: p.label for p in flow.sources + flow.sinks} | {s.id: s.id for s in segments}
    lanes = {target: i for i, target in enumerate(dict.fromkeys(s.target for s in segments))}
    height = {
        s.id: 34.0 if compact else _height(shown, s, incoming.get(s.id, ())) for s in segments
    }
    boxes = [
        *(Box(p.id, None, _PORT_WIDTH, 40.0) for p in flow.sources),
        *(
            Box(s.id, lanes[s.target], _COMPACT_WIDTH if compact else _WIDTH, height[s.id])
            for s in segments
        ),
        *(Box(p.id, None, _PORT_WIDTH, 40.0) for p in flow.sinks),
    ]
    pairs = [(link.source, link.target) for link in flow.links]
    layout = place(boxes, pairs, len(lanes), gap=28.0 if compact else 40.0, heading=_HEADING)
    inside = [
        definitions(shown),
        el("g", [_lane(shown, s, layout, lanes[s.target]) for s in _first(segments)], cls="lanes"),
        el("g", _lines(flow, layout, labels), cls="lines"),
        el("g", [_port(flow, p, layout.boxes[p.id]) for p in flow.sources + flow.sinks]),
        el("g", [
            _small_box(shown, s, layout.boxes[s.id])
            if compact
            else _box(shown, s, layout.boxes[s.id], incoming.get(s.id, ()), labels)
            for s in segments
        ]),
    ]  # fmt: skip
    drawing = el(
        "svg", *inside, xmlns="http://www.w3.org/2000/svg", cls="picture", role="group",
        viewBox=f"0 0 {layout.width:.0f} {layout.height:.0f}",
        width=round(layout.width), height=round(layout.height),
        aria_label=f"{plural(len(segments), 'segment')} in running order, a lane for each target",
    )  # fmt: skip
    words = " ".join(_left_out(shown, flow, compact))
    return Markup(
        el("p", words, cls="note")
        + el("div", el("div", drawing, cls="scroll", tabindex="0"), cls="board")
    )


def _left_out(shown: Shown, flow: Flow, compact: bool) -> list[str]:
    """What the picture does not show, and where it stands instead."""
    said = ["Time runs downwards. A line is what one part hands to another; thicker is more bytes."]
    total = len(shown.plan.segments)
    if total > DRAWN:
        said.append(
            f"Only the first {DRAWN} of {total:,} segments are drawn; the table below has them all."
        )
    if compact:
        said.append(
            f"With more than {COMPACT_ABOVE} segments, boxes are one line high: point at a line, "
            "or open a segment below, to see the tensors."
        )
    ports = len(shown.flow.sources) + len(shown.flow.sinks)
    if len(flow.sources) + len(flow.sinks) < ports and total <= DRAWN:
        said.append(
            "Inputs and outputs of one kind are drawn as one where there are many; "
            "the segments below name each."
        )
    return said


def _visible(flow: Flow, ids: set[str]) -> Flow:
    """Without links to segments that are not drawn, and without ports that only they use."""
    ports = {p.id for p in flow.sources + flow.sinks}
    links = tuple(k for k in flow.links if {k.source, k.target} <= ids | ports)
    linked = {k.source for k in links} | {k.target for k in links}
    sinks = tuple(p for p in flow.sinks if p.id in linked)
    return Flow(flow.values, flow.sources, sinks, links)


def _first(segments: Sequence[Segment]) -> list[Segment]:
    """The first segment of each target."""
    return list({s.target: s for s in reversed(segments)}.values())[::-1]


def _height(shown: Shown, segment: Segment, incoming: Sequence[Link]) -> float:
    """Rows for what comes in, two lines of figures, and more operators where more work is done."""
    rows = min(len(incoming), ROWS) + (len(incoming) > ROWS)
    return rows * _ROW + 54 + _LINE * _operator_lines(shown, segment) + (8 if rows else 0)


def _operator_lines(shown: Shown, segment: Segment) -> int:
    return min(len(segment.operators), 2 + round(4 * math.sqrt(shown.share([segment]))))


def _lane(shown: Shown, segment: Segment, layout: Layout, lane: int) -> Markup:
    left, width = layout.lanes[lane]
    number = shown.number[segment.target]
    letters = int(width / 8)
    return el("g", [
        el("rect", cls="lane", x=left, y=layout.top, width=width, rx=12,
           height=layout.bottom - layout.top),
        el("rect", x=left + 16, y=layout.top + 16, width=16, height=16, rx=3,
           fill=f"url(#p{number})"),
        _words(left + 40, layout.top + 29, clip(str(segment.target), letters), "name"),
        _words(left + 16, layout.top + 48, clip(segment.device.name, letters), "dim"),
    ], cls=shown.colour(segment.target))  # fmt: skip


def _lines(flow: Flow, layout: Layout, labels: Mapping[str, str]) -> list[Markup]:
    drawn = []
    for link, line in zip(flow.links, layout.lines, strict=True):
        # Four bytes are thin, a gigabyte is thick.
        width = 1 + max(0.0, math.log2(max(4, link.nbytes)) - 2) / 8
        drawn.append(
            el("path", el("title", _describe(link, labels)), d=line.path, stroke_width=width,
               marker_end="url(#arrow)", data_from=link.source, data_to=link.target)
        )  # fmt: skip
    return drawn


def _describe(link: Link, labels: Mapping[str, str]) -> str:
    names = [f"{v.name}: {v} · {size(v.nbytes)}" for v in link.values[:LISTED]]
    if len(link.values) > LISTED:
        names.append(f"and {len(link.values) - LISTED} more")
    return "\n".join(
        [f"{labels[link.source]} → {labels[link.target]}, {size(link.nbytes)}", *names]
    )


def _port(flow: Flow, port: Port, box: Box) -> Markup:
    values = [flow.values[name] for name in port.values]
    kind = tiny(values[0]) if len(values) == 1 else size(sum(v.nbytes for v in values))
    full = "\n".join(f"{v.name}: {v} · {size(v.nbytes)}" for v in values[:LISTED])
    return el("g", [
        el("title", f"{port.kind} {port.label}\n{full}"),
        el("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=20),
        _words(box.center, box.y + 16, clip(f"{port.kind} {port.label}", 27), "port-name"),
        _words(box.center, box.y + 31, clip(kind, 27), "mono dim"),
    ], cls="port " + port.kind.replace(" ", "-"), data_box=port.id)  # fmt: skip


def _box(
    shown: Shown,
    segment: Segment,
    box: Box,
    incoming: Sequence[Link],
    labels: Mapping[str, str],
) -> Markup:
    left, right, y = box.x + 20, box.x + box.width - 12, box.y + 16
    parts: list[Markup] = []
    for link in incoming[:ROWS]:
        one = link.values[0]
        what = tiny(one) if len(link.values) == 1 else plural(len(link.values), "tensor")
        parts += [
            _words(left, y, f"{clip(labels[link.source], 12)} {clip(what, 24)}", "mono dim"),
            _words(right, y, size(link.nbytes), "mono dim end"),
        ]
        y += _ROW
    if len(incoming) > ROWS:
        rest = incoming[ROWS:]
        parts.append(_words(left, y, f"and {len(rest)} more", "mono dim"))
        parts.append(_words(right, y, size(sum(k.nbytes for k in rest)), "mono dim end"))
        y += _ROW
    if incoming:
        parts.append(el("path", d=f"M{box.x + 8:.1f} {y - 9:.1f}h{box.width - 8:.1f}", cls="rule"))
        y += 8
    share = shown.share([segment])
    parts += [
        _words(left, y + 4, segment.id, "name"),
        _words(right, y + 4, plural(len(segment.nodes), "operation"), "dim end"),
        el("rect", x=left, y=y + 13, width=96, height=5, rx=2.5, cls="trough"),
        el("rect", x=left, y=y + 12, width=max(2.0, 96 * share), height=5, rx=2.5, cls="fill"),
        _words(right, y + 18, _work(shown, segment, share), "dim end"),
    ]
    for op, n in list(segment.operators.items())[: _operator_lines(shown, segment)]:
        y += _LINE
        parts.append(_words(left, y + 20, clip(times(short(op), n) if n > 1 else short(op), 36), "mono"))
    return _frame(shown, segment, box, parts)


def _small_box(shown: Shown, segment: Segment, box: Box) -> Markup:
    named = f"{len(segment.nodes)} · {operators(segment, 2)}"
    parts = [
        _words(box.x + 16, box.y + 22, segment.id, "name"),
        _words(box.x + 54, box.y + 22, clip(named, 18), "mono dim"),
    ]
    return _frame(shown, segment, box, parts)


def _frame(shown: Shown, segment: Segment, box: Box, parts: list[Markup]) -> Markup:
    """The box itself: a link to the segment's details, with the target's pattern at its side."""
    number = shown.number[segment.target]
    title = (
        f"{segment.id} on {segment.target}: {plural(len(segment.nodes), 'operation')}, "
        f"{count(segment.cost.flops)} FLOPs, {size(segment.cost.weight_bytes)} of weights"
    )
    return el("a", [
        el("title", title),
        el("rect", cls="card", x=box.x, y=box.y, width=box.width, height=box.height, rx=8),
        el("rect", x=box.x, y=box.y, width=8, height=box.height, rx=3, fill=f"url(#p{number})"),
        parts,
    ], href=f"#{segment.id}", cls=f"box {shown.colour(segment.target)}",
        data_box=segment.id)  # fmt: skip


def _work(shown: Shown, segment: Segment, share: float) -> str:
    if not shown.flops:
        return f"{percent(share)} of operations"
    return (
        f"{count(segment.cost.flops)}FLOP · {percent(share)}" if segment.cost.flops else "no FLOPs"
    )


def _words(x: float, y: float, words: str, cls: str) -> Markup:
    return el("text", words, x=x, y=y, cls=cls)
