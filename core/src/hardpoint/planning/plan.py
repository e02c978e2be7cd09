"""The plan: which segment runs where, in which order, what crosses, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch.export import ExportedProgram

from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Objective, TargetInfo
from hardpoint.interfaces.probe import Device
from hardpoint.program.program import Program


@dataclass(frozen=True, slots=True)
class Cost:
    """Figures of one segment, at the sizes of the example inputs.

    :param flops: floating-point operations of its matrix-like operators.
    :param weight_bytes: bytes of the weights it uses.
    :param input_bytes: bytes of the tensors that come in from other segments or the caller.
    :param output_bytes: bytes of the tensors that go out.
    :param seconds: predicted seconds, where the partitioner's costs gave any.
    """

    flops: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    seconds: float | None = None


@dataclass(frozen=True, eq=False)
class Segment:
    """A part of the program with one target.

    :param id: ``s0``, ``s1`` ... in running order.
    :param nodes: names of its compute nodes, in program order.
    :param inputs: names of the values it takes, in the order of ``program``'s user inputs.
    :param outputs: names of the values it gives, in order.
    :param program: the segment as a program of its own: flat tensors in and out, no mutation.
    :param operators: names of operators -> how often.
    """

    id: str
    target: Target
    device: Device
    nodes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    program: ExportedProgram
    operators: Mapping[str, int]
    cost: Cost


@dataclass(frozen=True, eq=False)
class Plan:
    """What :func:`hardpoint.plan` gives. ``print(plan)`` shows the table.

    :param segments: in running order.
    :param candidates: the targets that were considered, in order of preference.
    :param skipped: (provider, reason) of those that were left out.
    :param reasons: name of node -> why it runs where it does.
    :param partitioner: who decided: ``name (distribution version)``.
    :param basis: where predicted costs come from.
    """

    program: Program
    segments: tuple[Segment, ...]
    candidates: tuple[TargetInfo, ...]
    objective: Objective
    partitioner: str
    skipped: tuple[tuple[str, str], ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    basis: str = "none"

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets in use, each once, in running order."""
        return tuple(dict.fromkeys(s.target for s in self.segments))

    def crossing_bytes(self) -> int:
        """Bytes that cross from one segment to another, at the sizes of the examples."""
        made = {name for s in self.segments for name in s.outputs}
        from hardpoint.planning.costs import value_bytes

        values = {n.name: n for n in self.program.exported.graph.nodes}
        return sum(
            value_bytes(values[name]) for s in self.segments for name in s.inputs if name in made
        )

    def __str__(self) -> str:
        from hardpoint.planning.explain import render_table

        return render_table(self)

    def explain(self) -> str:
        """In words: for each segment what runs there, and why not on a preferred target."""
        from hardpoint.planning.explain import render_reasons

        return render_reasons(self)

    def to_json(self) -> dict[str, object]:
        """JSON-serializable facts; stored in packages and printed by ``--json``."""
        from hardpoint.planning.explain import describe

        return describe(self)

    def save_html(self, path: str | Path) -> Path:
        """Write a self-contained page that draws the plan. Returns its path."""
        from hardpoint.planning.html import save_page

        return save_page(self, Path(path))
