"""Short words and figures that the picture and the tables of a page share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property

from torch.fx import Node

from hardpoint.interfaces.kinds import Target
from hardpoint.page.markup import Markup, el
from hardpoint.planning.data import PlanData, Segment
from hardpoint.planning.explain import short
from hardpoint.planning.page.flow import Flow, Value, trace

# As many colours as page.css has. There are 7 patterns, so the first 56 targets all differ.
COLOURS = 8
_SHORT_TYPES = {
    "float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16",
    "int64": "i64", "int32": "i32", "int16": "i16", "int8": "i8", "uint8": "u8",
    "complex64": "c64", "complex128": "c128",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Shown:
    """A plan with what every part of the page asks of it."""

    plan: PlanData

    @cached_property
    def flow(self) -> Flow:
        """What crosses."""
        return trace(self.plan)

    @cached_property
    def nodes(self) -> Mapping[str, Node]:
        """The program's nodes by name."""
        return {n.name: n for n in self.plan.program.exported.graph.nodes}

    @cached_property
    def number(self) -> Mapping[Target, int]:
        """Target -> its number, which gives colour and pattern: used ones first."""
        every = [*self.plan.targets, *(c.target for c in self.plan.candidates)]
        return {target: i for i, target in enumerate(dict.fromkeys(every))}

    @cached_property
    def operations(self) -> int:
        """Compute nodes in all segments."""
        return sum(len(s.nodes) for s in self.plan.segments)

    @cached_property
    def flops(self) -> int:
        """FLOPs of all segments."""
        return sum(s.cost.flops for s in self.plan.segments)

    def share(self, segments: Sequence[Segment]) -> float:
        """Which part of the work these segments are: of the FLOPs, else of the operations."""
        if self.flops:
            return sum(s.cost.flops for s in segments) / self.flops
        return sum(len(s.nodes) for s in segments) / max(1, self.operations)

    def colour(self, target: Target) -> str:
        """The class that sets the target's colour."""
        return f"t{self.number[target] % COLOURS}"

    def swatch(self, target: Target, size: int = 14) -> Markup:
        """A small square in the target's colour and pattern."""
        square = el("rect", width=size, height=size, rx=3, fill=f"url(#p{self.number[target]})")
        return el("svg", square, cls="swatch", width=size, height=size, aria_hidden="true")

    def module(self, name: str) -> str:
        """Where in the model the node comes from: ``encoder.layer.0.attention``."""
        stack = self.nodes[name].meta.get("nn_module_stack") or {}
        paths = [str(entry[0]) for entry in stack.values()]
        path = paths[-1] if paths else ""
        return "" if path == "model" else path.removeprefix("model.")

    def covers(self, segment: Segment) -> str:
        """The innermost module that holds all of a segment's operations, or ``""``."""
        paths = [self.module(name).split(".") for name in segment.nodes]
        common = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            common.append(parts[0])
        return ".".join(common)


def operators(segment: Segment, most: int) -> str:
    """The commonest operators and how often, then how many more kinds there are."""
    items = [times(short(op), n) if n > 1 else short(op) for op, n in segment.operators.items()]
    return ", ".join(items[:most] + ([f"{more(items, most)} kinds"] if len(items) > most else []))


def more(items: Sized, shown: int) -> str:
    """``12 more``."""
    return f"{len(items) - shown} more"


def times(what: str, count: int) -> str:
    """``what``, and how often."""
    return f"{what} \N{MULTIPLICATION SIGN}{count}"


def tiny(value: Value) -> str:
    """``f32[batch, 384]``."""
    return str(replace(value, dtype=_SHORT_TYPES.get(value.dtype, value.dtype)))


def plural(count: int, noun: str) -> str:
    """``1 segment``, ``2 segments``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def seconds(amount: float) -> str:
    """``1.2 ms``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if amount >= scale:
            return f"{amount / scale:.3g} {unit}"
    return f"{amount / 1e-9:.3g} ns"


def percent(share: float) -> str:
    """``12 %``, ``< 1 %``."""
    return "< 1 %" if 0 < share < 0.01 else f"{share:.0%}".replace("%", " %")


def head_cells(*heads: str, figures: set[str]) -> list[Markup]:
    """The head of a table; columns of figures are set to the right."""
    return [el("th", h, scope="col", cls="num" if h in figures else None) for h in heads]
