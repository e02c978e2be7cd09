"""Place boxes and lines: one lane for each target, time runs downwards.

A layered drawing after Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical
system structures" (1981): layers by longest path, order within a layer by the barycenter of the
neighbours. A line that would run across boxes goes through a gutter beside its lane instead of
through dummy nodes; all such lines of one source share a track, and tracks are given out by the
left-edge rule of channel routing (Hashimoto and Stevens 1971).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hardpoint.planning.page.drawing import BOX_GAP, GUTTER, MARGIN, TRACK, Box, Drawing
from hardpoint.planning.page.route import Line, draw_lines

SWEEPS = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """A finished drawing.

    :param lanes: (left, width) of each lane. :param top: where lanes begin. :param bottom: and end.
    """

    width: float
    height: float
    boxes: Mapping[str, Box]
    lines: tuple[Line, ...]
    lanes: tuple[tuple[float, float], ...]
    top: float
    bottom: float


def place(
    boxes: Sequence[Box],
    links: Sequence[tuple[str, str]],
    lanes: int,
    *,
    gap: float,
    heading: float,
) -> Layout:
    """Place ``boxes``, which come in an order in which every link leads forwards.

    :param links: pairs of ids, each once.
    :param gap: height between layers. :param heading: height of the lanes' headings.
    """
    drawing = Drawing({b.id: b for b in boxes}, links, lanes, gap, heading)
    _assign_layers(drawing)
    _order_layers(drawing)
    _assign_tracks(drawing)
    _set_x(drawing)
    _set_y(drawing)
    inside = [b for b in boxes if b.lane is not None]
    top = min((b.y for b in inside), default=MARGIN + heading) - heading
    bottom = max((b.y + b.height for b in inside), default=top + heading) + gap / 2
    height = max(bottom, *(b.y + b.height for b in boxes)) if boxes else bottom
    return Layout(
        drawing.width,
        height + MARGIN,
        drawing.boxes,
        draw_lines(drawing),
        tuple(drawing.lane_spans),
        top,
        bottom,
    )


def _assign_layers(drawing: Drawing) -> None:
    """Longest path; ports that take are put below everything."""
    boxes = drawing.boxes
    before: dict[str, list[str]] = {name: [] for name in boxes}
    takes = {source for source, _ in drawing.links}
    for source, target in drawing.links:
        before[target].append(source)
    for box in boxes.values():
        first = 0 if box.lane is None else 1
        box.layer = max([first, *(boxes[u].layer + 1 for u in before[box.id])])
    last = max((b.layer for b in boxes.values() if b.lane is not None), default=0) + 1
    for box in boxes.values():
        if box.lane is None and box.id not in takes and before[box.id]:
            box.layer = last
    count = max((b.layer for b in boxes.values()), default=0) + 1
    drawing.layers = [[] for _ in range(count)]
    for box in boxes.values():
        drawing.layers[box.layer].append(box)


def _order_layers(drawing: Drawing) -> None:
    """Order each layer by the mean place of what its boxes are linked to, down and up again."""
    near: dict[str, list[str]] = {name: [] for name in drawing.boxes}
    for source, target in drawing.links:
        near[source].append(target)
        near[target].append(source)
    place = {
        b.id: float(b.lane if b.lane is not None else i)
        for layer in drawing.layers
        for i, b in enumerate(layer)
    }
    for sweep in range(SWEEPS):
        for layer in drawing.layers if sweep % 2 == 0 else reversed(drawing.layers):
            mean = {
                b.id: sum(place[n] for n in near[b.id]) / len(near[b.id])
                if near[b.id]
                else place[b.id]
                for b in layer
            }
            layer.sort(key=lambda b: (-1 if b.lane is None else b.lane, mean[b.id]))
            for i, box in enumerate(layer):
                # Neighbours in one lane stand beside each other, inside the lane's own unit.
                place[box.id] = mean[box.id] if box.lane is None else box.lane + i / 1000


def _assign_tracks(drawing: Drawing) -> None:
    """A gutter and a track for each source with lines that cannot run straight."""
    far: dict[str, list[Box]] = {}
    for a, b in drawing.links:
        source, target = drawing.boxes[a], drawing.boxes[b]
        if not drawing.straight(source, target):
            far.setdefault(a, []).append(target)
    ends: dict[int, list[int]] = {g: [] for g in range(drawing.lanes + 1)}
    for name, targets in sorted(far.items(), key=lambda item: drawing.boxes[item[0]].layer):
        source = drawing.boxes[name]
        lanes = [b.lane for b in (source, *targets) if b.lane is not None]
        middle = sum(lanes) / len(lanes) + 0.5 if lanes else 0.0
        gutter = min(ends, key=lambda g: (abs(g - middle) + 0.15 * len(ends[g]), g))
        used = ends[gutter]
        track = next((t for t, end in enumerate(used) if end <= source.layer), len(used))
        if track == len(used):
            used.append(0)
        used[track] = max(b.layer for b in targets)
        drawing.tracks[name] = gutter, track


def _set_x(drawing: Drawing) -> None:
    """Lanes and gutters side by side; then ports, near what they are linked to."""
    tracks = [0] * (drawing.lanes + 1)
    for gutter, track in drawing.tracks.values():
        tracks[gutter] = max(tracks[gutter], track + 1)
    x = MARGIN
    for lane in range(drawing.lanes + 1):
        drawing.gutter_left.append(x)
        inner = 0 < lane < drawing.lanes
        x += (GUTTER if inner or tracks[lane] else 0.0) + TRACK * tracks[lane]
        if lane == drawing.lanes:
            break
        rows = [[b for b in layer if b.lane == lane] for layer in drawing.layers]
        widths = [sum(b.width for b in row) + BOX_GAP * (len(row) - 1) for row in rows if row]
        width = max(widths, default=0.0) + 2 * BOX_GAP
        for row in rows:
            left = x + (width - sum(b.width for b in row) - BOX_GAP * (len(row) - 1)) / 2
            for box in row:
                box.x = left
                left += box.width + BOX_GAP
        drawing.lane_spans.append((x, width))
        x += width
    ports = [[b for b in layer if b.lane is None] for layer in drawing.layers]
    widest = max((sum(b.width + BOX_GAP for b in row) for row in ports), default=0.0)
    drawing.width = max(x + MARGIN, widest + 2 * MARGIN)
    _shift(drawing, (drawing.width - x - MARGIN) / 2)
    for row in ports:
        _place_ports(drawing, row)


def _shift(drawing: Drawing, by: float) -> None:
    """Center the lanes where the ports need more room than they."""
    drawing.gutter_left = [g + by for g in drawing.gutter_left]
    drawing.lane_spans = [(x + by, width) for x, width in drawing.lane_spans]
    for box in drawing.boxes.values():
        box.x += by


def _place_ports(drawing: Drawing, row: list[Box]) -> None:
    """Each port above the middle of its neighbours, pushed apart, within the picture."""
    near: dict[str, list[float]] = {b.id: [] for b in row}
    for link in drawing.links:
        for end, outgoing in ((0, True), (1, False)):
            other = drawing.boxes[link[1 - end]]
            if link[end] in near and other.lane is not None:
                near[link[end]].append(drawing.towards(link, outgoing=outgoing))
    middle = drawing.width / 2
    wish = {b.id: sum(near[b.id]) / len(near[b.id]) if near[b.id] else middle for b in row}
    row.sort(key=lambda b: wish[b.id])
    left = MARGIN
    for box in row:
        box.x = max(left, wish[box.id] - box.width / 2)
        left = box.x + box.width + BOX_GAP
    right = drawing.width - MARGIN
    for box in reversed(row):
        box.x = min(box.x, right - box.width)
        right = box.x - BOX_GAP


def _set_y(drawing: Drawing) -> None:
    y = MARGIN
    for i, layer in enumerate(drawing.layers):
        if i == 1:  # the first layer of segments; ports alone stand above the lanes
            y += drawing.heading
        for box in layer:
            box.y = y
        y += max((b.height for b in layer), default=0.0)
        drawing.layer_bottom.append(y)
        # Lines to many ports need room to spread.
        ports = i + 2 == len(drawing.layers) and drawing.layers[-1][0].lane is None
        y += drawing.gap * (1.6 if ports else 1) if layer else 0.0
