"""What it assigns becomes a plan that runs, and computes what the model does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node

from hardpoint.compiler.compile import compile_plan
from hardpoint.errors import HardpointError
from hardpoint.interfaces.backend import Support
from hardpoint.interfaces.probe import Device
from hardpoint.planning.graph import compute_nodes, is_view
from hardpoint.planning.plan import Plan
from hardpoint.planning.planner import plan_program
from hardpoint.program.program import Program
from hardpoint.registry.registry import Registry
from hardpoint.testing.backend.host import Host, HostBackend
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.partitioner.asking import first_objective, opened
from hardpoint.testing.partitioner.programs import programs
from hardpoint.testing.subject import Subject

_GRAPHS = 2  # of the random ones: each becomes dozens of segments

Claims = Callable[[int, Node], bool]

# What each of the kit's backends supports: node number and node -> whether.
_CLAIMS: dict[str, Claims] = {
    "kit-odd": lambda number, node: number % 5 in (1, 3) and not is_view(node),
    "kit-views": lambda number, node: number % 7 < 3,
    "kit-host": lambda number, node: True,
}


class Running:
    """Through the whole core, with backends of the kit that run in eager PyTorch."""

    @check("assigns")
    def test_its_plans_run_and_are_right(self, subject: Subject, figures: dict[str, Any]) -> None:
        """The segments form no cycle, and run in order they compute what the model does."""
        registry = Registry(path=[])
        for name, claims in _CLAIMS.items():
            registry.add("backend", name, _Partial(claims))
        partitioner, objective = opened(subject), first_objective(subject)
        counts = {}
        for program in programs(graphs=_GRAPHS):
            wanted = _results(program)  # before it is asked: it might change the program
            try:
                plan = plan_program(
                    program, registry=registry, targets=list(_CLAIMS),
                    objective=objective, partitioner=partitioner,
                )  # fmt: skip
                _expect_ordered(program, plan)
                model = compile_plan(plan, registry=registry)
                outputs = model.run([t.clone() for t in program.example_inputs])
            except HardpointError as error:
                fail(f"the plan for {program.name!r} does not run: {error}")
            _expect_right(program, outputs, wanted)
            counts[program.name] = len(plan.segments)
        figures["segments"] = counts


class _Partial(Host):
    """The kit's host, which claims a part of each program only."""

    def __init__(self, claims: Claims) -> None:
        super().__init__()
        self._backend = _PartialBackend(claims)


class _PartialBackend(HostBackend):
    def __init__(self, claims: Claims) -> None:
        super().__init__()
        self._claims = claims

    def support(self, program: ExportedProgram, device: Device) -> Support:
        nodes = compute_nodes(program)
        good = frozenset(n.name for i, n in enumerate(nodes) if self._claims(i, n))
        return Support(good, {n.name: "not claimed" for n in nodes if n.name not in good})


def _expect_ordered(program: Program, plan: Plan) -> None:
    """Each segment takes values that the caller or an earlier segment gives."""
    made = {name for segment in plan.segments for name in segment.outputs}
    there: set[str] = set()
    for segment in plan.segments:
        late = sorted(set(segment.inputs) & made - there)
        expect(
            not late,
            f"{program.name!r}: segment {segment.id} on {segment.target} needs {late[:3]}, which "
            f"later segments make: the assignment gives a cycle",
        )
        there |= set(segment.outputs)


def _results(program: Program) -> dict[str, torch.Tensor]:
    """What the program gives in eager PyTorch: name -> value."""
    values = program.run([t.clone() for t in program.example_inputs])
    specs = program.exported.graph_signature.output_specs
    names = [spec.arg.name for spec in specs if spec.kind is OutputKind.USER_OUTPUT]
    return {name: values[name] for name in names}


def _expect_right(
    program: Program, outputs: list[torch.Tensor], wanted: dict[str, torch.Tensor]
) -> None:
    for (name, want), got in zip(wanted.items(), outputs, strict=True):
        close = torch.allclose(got, want, rtol=1e-4, atol=1e-4, equal_nan=True)
        expect(
            close,
            f"{program.name!r}, planned by it: {name} is not what the model computes (it is off by "
            f"up to {(got - want).abs().max():.3g})",
        )
