"""What it optimizes for: declared objectives, and costs that it uses well or can do without."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Node

from hardpoint.errors import HardpointError
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import OBJECTIVES, Costs, Objective, TargetInfo
from hardpoint.planning.costs import value_bytes
from hardpoint.planning.graph import compute_nodes, is_compute, is_scalar, producer
from hardpoint.program.program import Program
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.partitioner.asking import ask, first_objective, opened, question
from hardpoint.testing.partitioner.programs import graph, layers
from hardpoint.testing.partitioner.targets import drawn, target, whole
from hardpoint.testing.subject import Subject

_LINKS: Mapping[str, tuple[float, float]] = {  # seconds a transfer, bytes a second
    "fast links": (1e-7, 1e12),
    "slow links": (1e-3, 1e6),
}
_SPEED = {"npu": 0.3, "gpu": 0.5, "dsp": 0.8, "cpu": 1.0}
_JUDGED: tuple[Objective, ...] = ("latency", "throughput")
_SLACK = 1e-9  # of floating-point sums in another order


class Optimizes:
    """Objectives and costs."""

    @check("optimizes")
    def test_every_declared_objective_is_accepted(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """For each objective of its info it gives a valid answer, with costs and without."""
        partitioner = opened(subject)
        declared = subject.info.objectives
        first_objective(subject)
        unknown = sorted(set(declared) - set(OBJECTIVES))
        expect(not unknown, f"info.objectives names {unknown}; the contract has {OBJECTIVES}")
        for objective in declared:
            for program in (layers(), graph(0)):
                targets = drawn(program.exported, 0)
                ask(partitioner, program, targets, objective)
                ask(partitioner, program, targets, objective, _costs("fast links"))
        figures["objectives"] = list(declared)

    @check("optimizes")
    def test_an_objective_that_it_does_not_declare_is_refused(self, subject: Subject) -> None:
        """An objective outside its info is refused in words, not answered as another one."""
        others = [o for o in OBJECTIVES if o not in subject.info.objectives]
        skip_unless(others, "it declares every objective that there is")
        partitioner, program = opened(subject), layers()
        for objective in others:
            targets = [target(program.exported, "cpu")]
            try:
                partitioner.partition(program.exported, targets, objective, Costs())
            except HardpointError as error:
                expect(
                    objective in str(error),
                    f"it refuses the objective {objective!r} without naming it: {error}",
                )
            except Exception as error:
                fail(
                    f"asked for {objective!r}, it raised {type(error).__name__}: {error}; say it "
                    f"in a PlanError"
                )
            else:
                fail(f"it declares {subject.info.objectives}, and answers for {objective!r}")

    @check("optimizes")
    def test_absent_costs_are_no_obstacle(self, subject: Subject) -> None:
        """Costs may know the nodes' seconds only, the transfers' only, or nothing."""
        partitioner, objective = opened(subject), first_objective(subject)
        full = _costs("slow links")
        parts = (
            Costs(node_seconds=full.node_seconds, basis="the kit's"),
            Costs(transfer_seconds=full.transfer_seconds, basis="the kit's"),
            Costs(),
        )
        for program in (layers(), graph(1)):
            for costs in parts:
                ask(partitioner, program, drawn(program.exported, 2), objective, costs)

    @check("optimizes")
    def test_it_is_never_worse_than_one_target(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """By the costs it is given, its answer costs no more than all on the best single target.

        For "latency" that is the sum of all nodes and transfers, for "throughput" the busiest
        target's share of it.
        """
        skip_unless(
            subject.info.uses_costs,
            "it declares uses_costs=False: it goes by the order of the targets alone",
        )
        wanted = [o for o in _JUDGED if o in subject.info.objectives]
        skip_unless(wanted, "it declares neither latency nor throughput, which costs are about")
        partitioner = opened(subject)
        ratios: dict[str, float] = {}
        for objective in wanted:
            for links in _LINKS:
                costs = _costs(links)
                for program in (layers(), *(graph(seed, several=False) for seed in range(2))):
                    for seed in (0, 2, 4, 6):
                        targets = drawn(program.exported, seed)
                        answer = ask(partitioner, program, targets, objective, costs)
                        got = _seconds(program, answer.targets, costs, objective)
                        best = _best_single(program, targets, costs)
                        what = question(program, targets, objective)
                        expect(
                            got <= best * (1 + _SLACK),
                            f"{what} with {links}: its answer costs {got:.3g} s, and all on one "
                            f"target {best:.3g} s",
                        )
                        key = f"{objective}, {links}"
                        ratios[key] = min(ratios.get(key, 1.0), round(got / best, 3))
        figures["best ratio to one target"] = ratios


def _costs(links: str) -> Costs:
    """Costs that differ by node and target, the same in every run."""
    latency, bandwidth = _LINKS[links]

    def node_seconds(node: Node, at: Target) -> float:
        draw = zlib.crc32(f"{node.name} on {at}".encode()) / 2**32
        return (1 + 9 * draw) * 1e-5 * _SPEED[at.backend]

    def transfer_seconds(count: int, one: Target, other: Target) -> float:
        return latency + count / bandwidth

    return Costs(node_seconds, transfer_seconds, basis="the kit's own, made up")


def _best_single(program: Program, targets: Sequence[TargetInfo], costs: Costs) -> float:
    assert costs.node_seconds is not None, "these costs are whole"
    nodes = compute_nodes(program.exported)
    singles = whole(targets, program.exported)
    return min(sum(costs.node_seconds(n, info.target) for n in nodes) for info in singles)


def _seconds(program: Program, placed: Mapping[str, Target], costs: Costs, objective: str) -> float:
    """What an assignment costs; a value goes to each other target that uses it, once."""
    assert costs.node_seconds is not None, "these costs are whole"
    assert costs.transfer_seconds is not None, "these costs are whole"
    busy = dict.fromkeys(placed.values(), 0.0)
    for node in compute_nodes(program.exported):
        busy[placed[node.name]] += costs.node_seconds(node, placed[node.name])
    for value, goes_to in _crossings(program.exported, placed):
        home = placed[producer(value).name]
        for at in goes_to:
            busy[at] += costs.transfer_seconds(value_bytes(value), home, at)
    return sum(busy.values()) if objective == "latency" else max(busy.values())


def _crossings(
    program: ExportedProgram, placed: Mapping[str, Target]
) -> list[tuple[Node, list[Target]]]:
    found = []
    for node in program.graph.nodes:
        if node.op != "call_function" or is_scalar(node) or producer(node).name not in placed:
            continue
        users = {placed[u.name]: None for u in node.users if is_compute(u)}
        away = [at for at in users if at != placed[producer(node).name]]
        if away:
            found.append((node, away))
    return found
