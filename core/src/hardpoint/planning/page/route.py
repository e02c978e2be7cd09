"""Draw the lines of a layout: out of a box downwards, across between layers, into the next box."""

from __future__ import annotations

from dataclasses import dataclass

from hardpoint.planning.page.drawing import Box, Drawing

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Line:
    """A link's way through the picture.

    :param path: SVG path data. :param arrives: where it meets its target, from the left edge.
    """

    source: str
    target: str
    path: str
    arrives: float


def draw_lines(drawing: Drawing) -> tuple[Line, ...]:
    """A line for each link, in the order of the links."""
    leave, arrive = _attachments(drawing, outgoing=True), _attachments(drawing, outgoing=False)
    return tuple(
        Line(*link, _path(drawing, link, leave[link], arrive[link]), arrive[link])
        for link in drawing.links
    )


def _path(drawing: Drawing, link: tuple[str, str], leave: float, arrive: float) -> str:
    source, target = drawing.boxes[link[0]], drawing.boxes[link[1]]
    floor = drawing.layer_bottom[source.layer]
    ceiling = drawing.layer_bottom[target.layer - 1]
    path = f"M{_n(leave)} {_n(source.y + source.height)}"
    if floor > source.y + source.height:
        path += f"V{_n(floor)}"
    if not drawing.straight(source, target):
        return path + _along(
            drawing.track_x(link[0]), leave, floor, drawing.gap, ceiling, arrive, target
        )
    if ceiling <= floor:
        return path + _curve((leave, floor), (arrive, target.y))
    if target.lane is None:  # down its own lane, which is empty from here, then across
        return path + f"V{_n(ceiling)}" + _curve((leave, ceiling), (arrive, target.y))
    return path + _curve((leave, floor), (arrive, floor + drawing.gap)) + f"V{_n(target.y)}"


def _along(
    x: float, leave: float, floor: float, gap: float, ceiling: float, arrive: float, target: Box
) -> str:
    """Into the track at ``x``, down it, and out of it above ``target``."""
    into = floor + gap
    out = max(ceiling, into)
    down = f"V{_n(out)}" if out > into else ""
    return _curve((leave, floor), (x, into)) + down + _curve((x, out), (arrive, target.y))


def _attachments(drawing: Drawing, *, outgoing: bool) -> dict[tuple[str, str], float]:
    """Where on its box each line begins (or ends), in the order of where it goes (comes from)."""
    by_box: dict[str, list[tuple[str, str]]] = {}
    for link in drawing.links:
        by_box.setdefault(link[0 if outgoing else 1], []).append(link)
    found = {}
    for name, links in by_box.items():
        box = drawing.boxes[name]
        # Lines that share a track leave at one point: at first they are one line.
        points: dict[float, list[tuple[str, str]]] = {}
        for link in links:
            points.setdefault(drawing.towards(link, outgoing=outgoing), []).append(link)
        for i, point in enumerate(sorted(points)):
            for link in points[point]:
                found[link] = box.x + box.width * (i + 1) / (len(points) + 1)
    return found


def _curve(start: Point, end: Point) -> str:
    """A line that leaves and arrives upright."""
    if start[0] == end[0]:
        return f"V{_n(end[1])}"
    middle = (start[1] + end[1]) / 2
    return f"C{_n(start[0])} {_n(middle)} {_n(end[0])} {_n(middle)} {_n(end[0])} {_n(end[1])}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
