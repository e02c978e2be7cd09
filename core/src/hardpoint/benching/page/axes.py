"""Logarithmic axes of a plot: frame, ticks, grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hardpoint.benching.columns import figure
from hardpoint.page.markup import Markup, el

WIDTH, HEIGHT = 900.0, 420.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 24.0, 14.0, 48.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of one axis to places, by logarithms.

    :param low: least value. :param high: greatest. :param start: place of ``low``.
    :param end: place of ``high``.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Where ``value`` stands."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values between the ends: by decades where there are many, else finer ones."""
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps: tuple[float, ...] = (1,) if last - first > 4 else (1, 2, 5)
        if self.high / self.low < 5:
            steps = (1, 1.5, 2, 3, 4, 5, 6, 8)
        found = [s * 10.0**e for e in range(first, last + 1) for s in steps]
        inside = [t for t in found if self.low <= t <= self.high]
        every = math.ceil(len(inside) / 12)
        return inside[::every] or [self.low, self.high]


def horizontal(values: Iterable[float]) -> Scale:
    """The scale of an axis below the plot."""
    low, high = _room(values)
    return Scale(low, high, _LEFT, WIDTH - _RIGHT)


def vertical(values: Iterable[float]) -> Scale:
    """The scale of an axis beside the plot."""
    low, high = _room(values)
    return Scale(low, high, HEIGHT - _BOTTOM, _TOP)


def frame(
    x: Scale, y: Scale, x_name: str, y_name: str, *, x_ticks: Sequence[float] | None = None
) -> list[Markup]:
    """Grid, tick labels, and names of the axes."""
    parts = []
    for value in x.ticks() if x_ticks is None else x_ticks:
        at = x(value)
        parts.append(el("line", x1=at, x2=at, y1=y.start, y2=y.end, cls="grid"))
        parts.append(el("text", _tick(value), x=at, y=y.start + 18, cls="tick middle"))
    for value in y.ticks():
        at = y(value)
        parts.append(el("line", x1=x.start, x2=x.end, y1=at, y2=at, cls="grid"))
        parts.append(el("text", _tick(value), x=x.start - 8, y=at + 4, cls="tick end"))
    middle = (x.start + x.end) / 2
    parts.append(el("text", x_name, x=middle, y=y.start + 40, cls="axis middle"))
    parts.append(el("text", y_name, x=6.0, y=y.end - 2, cls="axis"))
    return parts


def plot(children: Sequence[Markup], name: str) -> Markup:
    """The picture."""
    svg = el("svg", children, cls="plot", viewBox=f"0 0 {WIDTH:.0f} {HEIGHT:.0f}", role="img",
             aria_label=name)  # fmt: skip
    return el("div", svg, cls="scroll board")


def _room(values: Iterable[float]) -> tuple[float, float]:
    """Ends with some room around the values."""
    found = list(values)
    low, high = min(found), max(found)
    if high / low < 1.5:
        return low / 1.5, high * 1.5
    margin = (high / low) ** 0.08
    return low / margin, high * margin


def _tick(value: float) -> str:
    if 1e-3 <= value < 1e6:
        return figure(value).rstrip("0").rstrip(".") if "." in figure(value) else figure(value)
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
