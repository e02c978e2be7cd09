"""Which nodes OpenVINO runs rightly: by rules, and by what its front end converts."""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

from hardpoint import Support
from hardpoint.planning import compute_nodes
from hardpoint_openvino.convert import not_converted
from hardpoint_openvino.operators import scalar_refusal, why_not
from hardpoint_openvino.origin import in_words
from hardpoint_openvino.program import CHECKS, decompose, origin_of
from hardpoint_openvino.ranges import Ranges
from hardpoint_openvino.recurrent import RECURRENT

_NOT_CONVERTED = "OpenVINO's PyTorch front end does not convert it with these arguments"


def support(program: ExportedProgram) -> Support:
    """The answer about every compute node of ``program``."""
    nodes = compute_nodes(program)
    ranges = Ranges(program)
    scalars = _bad_scalars(program)
    refused: dict[str, str] = {}
    for node in nodes:
        reason = why_not(node, ranges)
        if not reason:
            used = [scalars[n] for n in node.all_input_nodes if n in scalars]
            reason = used[0] if used else ""
        if reason:
            refused[node.name] = reason
    # Recurrent nodes do not go through the front end.
    left = {n.name for n in nodes if n.target not in RECURRENT} - set(refused)
    if left:
        refused |= _unconverted(program, left)
    return Support(frozenset(n.name for n in nodes if n.name not in refused), refused)


def _bad_scalars(program: ExportedProgram) -> dict[Node, str]:
    """Numbers of the graph (sizes, mostly) that cannot be computed there -> the reason."""
    found: dict[Node, str] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or isinstance(node.meta.get("val"), torch.Tensor):
            continue
        inherited = [found[n] for n in node.all_input_nodes if n in found]
        reason = inherited[0] if inherited else scalar_refusal(node)
        if reason:
            found[node] = reason
    return found


def _unconverted(program: ExportedProgram, wanted: set[str]) -> dict[str, str]:
    """Those of ``wanted`` that the front end leaves as they are, by partial conversion."""
    try:
        decomposed = decompose(program)
        module, origins = _cut_out(decomposed, program, wanted)
        bad = not_converted(module)
    except Exception as error:  # of PyTorch's tracing or the front end's reading
        reason = f"OpenVINO's front end cannot read the program: {in_words(error, 300)}"
        return dict.fromkeys(wanted, reason)
    found = {}
    for name, why in bad.items():
        origin = origins.get(name, "")
        if origin in wanted:
            found[origin] = f"{_NOT_CONVERTED}{': ' + why[:200] if why else ''}"
        elif not origin:  # a number between operators: nobody can tell who needs it
            return dict.fromkeys(wanted, f"{_NOT_CONVERTED}: {name}")
    return found


def _cut_out(
    decomposed: ExportedProgram, program: ExportedProgram, wanted: set[str]
) -> tuple[GraphModule, dict[str, str]]:
    """The decomposed graph of ``wanted`` alone; what others make comes in as inputs.

    :return: the graph, and of each of its nodes the program's node that it was made of.
    """
    graph, copies, origins = Graph(), dict[Node, Node](), dict[str, str]()
    nodes = list(decomposed.graph.nodes)
    needed = {n: origin_of(n, program) for n in nodes if n.op == "call_function"}
    calls: list[Node] = []
    for node in nodes:
        if node.op == "placeholder":
            copies[node] = _input(graph, node)
        elif node.op == "call_function" and node.target not in CHECKS:
            origin = needed[node]
            value = node.meta.get("val")
            if origin in wanted or (not origin and not _is_tensors(value)) or _is_number(value):
                calls.append(node)
            elif isinstance(value, torch.Tensor):
                copies[node] = _input(graph, node)
    for node in calls:
        if all(n in copies for n in node.all_input_nodes):
            copies[node] = graph.node_copy(node, copies.__getitem__)
            copies[node].meta = dict(node.meta)
            origins[copies[node].name] = needed[node]
    ends = [
        n for n in graph.nodes
        if n.op == "call_function" and not n.users and isinstance(n.meta.get("val"), torch.Tensor)
    ]  # fmt: skip
    graph.output(tuple(ends))
    return GraphModule(torch.nn.Module(), graph), origins


def _input(graph: Graph, node: Node) -> Node:
    made = graph.placeholder(node.name)
    made.meta = dict(node.meta)
    return made


def _is_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float, torch.SymInt, torch.SymFloat, torch.SymBool))
