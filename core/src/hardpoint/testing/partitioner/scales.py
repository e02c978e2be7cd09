"""Five thousand nodes: an answer in bounded time and memory."""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node

from hardpoint.interfaces.partitioner import Costs
from hardpoint.planning.graph import compute_nodes
from hardpoint.planning.validate import check_assignment
from hardpoint.program.flatten import build
from hardpoint.program.program import held_tensors
from hardpoint.registry.registry import Registry
from hardpoint.testing.check import check, expect
from hardpoint.testing.partitioner.asking import first_objective
from hardpoint.testing.partitioner.programs import SEED, layers
from hardpoint.testing.partitioner.targets import drawn
from hardpoint.testing.process import answer_of, run_python
from hardpoint.testing.subject import Subject

NODES = 5000
SECONDS = 60  # of processor time for one answer; the first-party one takes a fiftieth of one
GIGABYTES = 4.0
_PATIENCE = 600.0  # seconds of wall time for all of them: other programs may be busy here, too
_SHAPES = ("a chain", "a random graph", "a fan")

_SOURCE = """
import json
from hardpoint.testing.partitioner.scales import answers_apart
answer(answers_apart(json.loads(sys.argv[1])))
"""


class Scales:
    """Large programs."""

    @check("scales")
    def test_five_thousand_nodes_take_bounded_time(
        self, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Chains, random graphs and fans of 5,000 nodes: each in a minute of processor time.

        And in 4 GB of memory.
        """
        order = {
            "name": subject.name,
            "config": dict(subject.settings.config),
            "objective": first_objective(subject),
            "seconds": SECONDS,
        }
        finished = run_python(_SOURCE, json.dumps(order), timeout=_PATIENCE)
        what = f"partitioning programs of {NODES:,} nodes"
        slow = f"{what} takes more than {SECONDS} s each: keep it near linear in the nodes"
        expect(finished.code not in (None, -signal.SIGXCPU), slow)
        taken = answer_of(finished, what)
        figures.update(taken)
        for shape, used in taken.items():
            expect(
                used["gigabytes"] <= GIGABYTES,
                f"partitioning {shape} of {NODES:,} nodes took {used['gigabytes']} GB of memory",
            )


def answers_apart(order: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Ask once for each shape, in the process that this is called in; what that took."""
    partitioner = Registry().open("partitioner", order["name"], order["config"])
    taken = {}
    for shape in _SHAPES:
        program = _large(shape)
        targets = drawn(program, 0)
        memory, begun = _peak(), time.process_time()
        _limit_processor(int(begun) + 1 + order["seconds"])
        try:
            answer = partitioner.partition(program, targets, order["objective"], Costs())
        finally:
            _limit_processor(resource.RLIM_INFINITY)
        taken[shape] = {
            "nodes": len(compute_nodes(program)),
            "seconds": round(time.process_time() - begun, 3),
            "gigabytes": round(_peak() - memory, 3),
        }
        check_assignment(answer, program, targets, "", "")
    return taken


def _limit_processor(seconds: int) -> None:
    """Past so much processor time, the system ends this process by SIGXCPU."""
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))


def _peak() -> float:
    """The most gigabytes that this process ever had in memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 30) if sys.platform == "darwin" else peak / (1 << 20)


def _large(shape: str) -> ExportedProgram:
    """A program made node by node: capturing one of this size takes longer than to partition it."""
    small = layers().exported
    held = held_tensors(small)
    graph = Graph()
    inputs: dict[str, Node] = {}
    for node in small.graph.nodes:
        if node.op == "placeholder":
            inputs[node.name] = graph.placeholder(node.name)
            inputs[node.name].meta = dict(node.meta)
    weights = [n for name, n in inputs.items() if name in held and held[name].dim() == 2]
    (start,) = [n for name, n in inputs.items() if name not in held]
    values = [start]
    draw = torch.Generator().manual_seed(SEED)
    for number in range(NODES):
        operands = _operands(shape, number, len(values), draw)
        one, other = (values[i] for i in operands)
        if number % 9 == 0:
            made = graph.call_function(
                torch.ops.aten.linear.default, (one, weights[number % len(weights)])
            )
        elif number % 9 == 1:
            made = graph.call_function(torch.ops.aten.view.default, (one, [2, 32]))
        else:
            made = graph.call_function(torch.ops.aten.add.Tensor, (one, other))
        made.meta = {"val": start.meta["val"]}
        values.append(made)
    graph.output((values[-1],))
    signature = ExportGraphSignature(
        list(small.graph_signature.input_specs),
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=values[-1].name), None)],
    )
    return build({}, graph, signature, small.state_dict, small.constants, small)


def _operands(shape: str, number: int, count: int, draw: torch.Generator) -> tuple[int, int]:
    """Which two values a node takes."""
    if shape == "a chain":
        return count - 1, count - 1
    if shape == "a fan":  # everything takes the first value; every hundredth gathers
        return (count - 1 if number % 100 == 0 else 0), 0
    near = max(0, count - 50)
    one, other = torch.randint(0, 1 << 30, (2,), generator=draw).tolist()
    return near + one % (count - near), other % count
