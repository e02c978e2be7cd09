"""A drawing in the making: boxes, the links between them, and the room that they get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MARGIN = 20.0
BOX_GAP = 16.0
TRACK = 9.0
GUTTER = 34.0


@dataclass(eq=False)
class Box:
    """A segment, or a port (``lane`` is ``None``; ports stand above and below all lanes)."""

    id: str
    lane: int | None
    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def center(self) -> float:
        """The middle, from the left edge of the picture."""
        return self.x + self.width / 2


@dataclass(eq=False)
class Drawing:
    """What the steps of the layout fill in, one after another.

    :param links: pairs of ids; every link leads to a later box.
    :param gap: height between layers. :param heading: height of the lanes' headings.
    :param tracks: source -> (gutter, track) of its lines that cannot run straight.
    :param lane_spans: (left, width) of each lane.
    """

    boxes: dict[str, Box]
    links: Sequence[tuple[str, str]]
    lanes: int
    gap: float
    heading: float
    layers: list[list[Box]] = field(default_factory=list)
    tracks: dict[str, tuple[int, int]] = field(default_factory=dict)
    lane_spans: list[tuple[float, float]] = field(default_factory=list)
    gutter_left: list[float] = field(default_factory=list)
    layer_bottom: list[float] = field(default_factory=list)
    width: float = 0.0

    def straight(self, source: Box, target: Box) -> bool:
        """Whether a line meets no box: to the next layer, or down a lane that is empty between."""
        between = self.layers[source.layer + 1 : target.layer]
        if not between:
            return True
        lanes = {box.lane for box in (source, target)} - {None}
        return len(lanes) == 1 and not any(box.lane in lanes for layer in between for box in layer)

    def track_x(self, source: str) -> float:
        """Where the track of ``source`` runs."""
        gutter, track = self.tracks[source]
        return self.gutter_left[gutter] + GUTTER / 2 + TRACK * track

    def towards(self, link: tuple[str, str], *, outgoing: bool) -> float:
        """Where a line goes to from its source (or comes from, seen by its target)."""
        source, target = self.boxes[link[0]], self.boxes[link[1]]
        if not self.straight(source, target):
            return self.track_x(link[0])
        return target.center if outgoing else source.center
