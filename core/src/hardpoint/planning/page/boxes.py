"""The parts of the picture: a box for a segment, a pill for a port, a lane for a target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hardpoint.page.markup import Markup, clip, el
from hardpoint.planning.data import Segment
from hardpoint.planning.explain import short
from hardpoint.planning.page.drawing import Box
from hardpoint.planning.page.flow import Flow, Link, Port
from hardpoint.planning.page.layout import Layout
from hardpoint.planning.page.words import Shown, operators, percent, plural, times, tiny
from hardpoint.units import count, size

WIDTH, COMPACT_WIDTH, COMPACT_HEIGHT = 272.0, 216.0, 34.0
PORT_WIDTH, PORT_HEIGHT = 172.0, 40.0
# How many of the links that come in are written into a box, and tensors into what pops up.
ROWS = 3
LISTED = 6
_ROW, _LINE, _FIGURES, _BAR = 17.0, 16.0, 58.0, 96.0


def height(shown: Shown, segment: Segment, incoming: Sequence[Link]) -> float:
    """Rows for the links that come in, the figures, more operators where more work is done."""
    rows = min(len(incoming), ROWS + 1)
    return rows * _ROW + (8 if rows else 0) + _FIGURES + _LINE * _operator_lines(shown, segment)


def _operator_lines(shown: Shown, segment: Segment) -> int:
    return min(len(segment.operators), 2 + round(4 * math.sqrt(shown.share([segment]))))


def lane(shown: Shown, segment: Segment, layout: Layout, number: int) -> Markup:
    """The lane of ``segment``'s target, with its name and device."""
    left, width = layout.lanes[number]
    letters = int(width / 8)
    pattern = f"url(#p{shown.number[segment.target]})"
    return el("g", [
        el("rect", cls="lane", x=left, y=layout.top, width=width, rx=12,
           height=layout.bottom - layout.top),
        el("rect", x=left + 16, y=layout.top + 16, width=16, height=16, rx=3, fill=pattern),
        _words(left + 40, layout.top + 29, clip(str(segment.target), letters), "name"),
        _words(left + 16, layout.top + 48, clip(segment.device.name, letters), "dim"),
    ], cls=shown.colour(segment.target))  # fmt: skip


def pill(flow: Flow, port: Port, box: Box) -> Markup:
    """A port of the program."""
    values = [flow.values[name] for name in port.values]
    kind = tiny(values[0]) if len(values) == 1 else size(sum(v.nbytes for v in values))
    return el("g", [
        el("title", f"{port.kind} {port.label}\n{tensors(flow, port.values)}"),
        el("rect", x=box.x, y=box.y, width=box.width, height=box.height, rx=box.height / 2),
        _words(box.center, box.y + 17, clip(f"{port.kind} {port.label}", 27), "port-name"),
        _words(box.center, box.y + 31, clip(kind, 25), "mono dim"),
    ], cls="port " + port.kind.replace(" ", "-"), data_box=port.id)  # fmt: skip


def tensors(flow: Flow, names: Sequence[str]) -> str:
    """A line for each tensor, for what pops up."""
    values = [flow.values[name] for name in names]
    lines = [f"{clip(v.name, 30)}: {v} · {size(v.nbytes)}" for v in values[:LISTED]]
    rest = len(names) - LISTED
    return "\n".join([*lines, f"and {rest} more"] if rest > 0 else lines)


def full(
    shown: Shown,
    segment: Segment,
    box: Box,
    incoming: Sequence[Link],
    labels: Mapping[str, str],
) -> Markup:
    """A segment with what comes in, its share of the work, and its operators.

    :param incoming: from left to right, as the lines arrive.
    """
    left, right = box.x + 20, box.x + box.width - 12
    parts, y = _rows(box, incoming, labels)
    share = shown.share([segment])
    bar = {"x": left, "y": y + 14, "height": 5, "rx": 2.5}
    parts += [
        _words(left, y + 5, segment.id, "name"),
        _words(right, y + 5, plural(len(segment.nodes), "operation"), "dim end"),
        el("rect", width=_BAR, cls="trough", **bar),
        el("rect", width=max(2.0, _BAR * share), cls="fill", **bar),
        _words(right, y + 21, _work(shown, segment, share), "dim end"),
    ]
    y += 24
    for op, n in list(segment.operators.items())[: _operator_lines(shown, segment)]:
        y += _LINE
        parts.append(_words(left, y, clip(times(short(op), n) if n > 1 else short(op), 36), "mono"))
    return _frame(shown, segment, box, parts)


def _rows(
    box: Box, incoming: Sequence[Link], labels: Mapping[str, str]
) -> tuple[list[Markup], float]:
    """A line of text for each link that comes in; and where the rest of the box begins."""
    left, right, y = box.x + 20, box.x + box.width - 12, box.y + 16
    said = []
    for link in incoming[:ROWS]:
        several = len(link.values) > 1
        what = plural(len(link.values), "tensor") if several else tiny(link.values[0])
        said.append((f"{clip(labels[link.source], 12)} {clip(what, 24)}", link.nbytes))
    if len(incoming) > ROWS:
        rest = incoming[ROWS:]
        said.append((f"and {len(rest)} more", sum(link.nbytes for link in rest)))
    parts = []
    for words, nbytes in said:
        parts += [
            _words(left, y, words, "mono dim"),
            _words(right, y, size(nbytes), "mono dim end"),
        ]
        y += _ROW
    if said:
        line = f"M{box.x + 8:.1f} {y - 9:.1f}h{box.width - 8:.1f}"
        parts.append(el("path", d=line, cls="rule"))
        y += 8
    return parts, y


def compact(shown: Shown, segment: Segment, box: Box) -> Markup:
    """A segment on one line."""
    named = f"{len(segment.nodes)} · {operators(segment, 2)}"
    parts = [
        _words(box.x + 16, box.y + 22, segment.id, "name"),
        _words(box.x + 54, box.y + 22, clip(named, 23), "mono dim"),
    ]
    return _frame(shown, segment, box, parts)


def _frame(shown: Shown, segment: Segment, box: Box, parts: list[Markup]) -> Markup:
    """The box itself: a link to the segment's details, with the target's pattern at its side."""
    title = (
        f"{segment.id} on {segment.target}: {plural(len(segment.nodes), 'operation')}, "
        f"{count(segment.cost.flops)} FLOPs, {size(segment.cost.weight_bytes)} of weights"
    )
    pattern = f"url(#p{shown.number[segment.target]})"
    return el("a", [
        el("title", title),
        el("rect", cls="card", x=box.x, y=box.y, width=box.width, height=box.height, rx=8),
        el("rect", x=box.x, y=box.y, width=8, height=box.height, rx=3, fill=pattern),
        parts,
    ], href=f"#{segment.id}", cls=f"box {shown.colour(segment.target)}",
        data_box=segment.id)  # fmt: skip


def _work(shown: Shown, segment: Segment, share: float) -> str:
    if not shown.flops:
        return f"{percent(share)} of operations"
    flops = segment.cost.flops
    return f"{count(flops)}FLOP · {percent(share)}" if flops else "no FLOPs"


def _words(x: float, y: float, words: str, cls: str) -> Markup:
    return el("text", words, x=x, y=y, cls=cls)
