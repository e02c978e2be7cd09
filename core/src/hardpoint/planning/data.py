"""What a plan consists of: data alone, so that whatever shows a plan need not know the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.export import ExportedProgram

from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Objective, TargetInfo
from hardpoint.interfaces.probe import Device
from hardpoint.planning.costs import value_bytes
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
class PlanData:
    """The facts of a plan.

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
        values = {n.name: n for n in self.program.exported.graph.nodes}
        return sum(
            value_bytes(values[name]) for s in self.segments for name in s.inputs if name in made
        )
