"""The three modes on another device than the CPU, for the backends of such devices.

An artifact's graph and weights are those of the CPU's, so that a package stores each weight once
whatever the targets; what the graph makes, and where its weights go, is decided when it is opened.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_map

from hardpoint import Artifact, Executable
from hardpoint_cpu import aot, eager, inductor, wire
from hardpoint_cpu.indices import refuse_negative
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.recipe import CPU
from hardpoint_cpu.segment import Segment
from hardpoint_cpu.tuning import Tuning


def on(segment: Segment, device: torch.device) -> Segment:
    """``segment`` with its weights on ``device``, and all that its graphs make made there."""
    weights = {a: (name, t.detach().to(device)) for a, (name, t) in segment.weights.items()}
    subgraphs = {a: copy.deepcopy(sub) for a, sub in segment.subgraphs.items()}
    for sub in subgraphs.values():
        for module in sub.modules():
            if isinstance(module, GraphModule):
                _retarget(module.graph, device)
                module.recompile()
    graph = Graph()
    graph.output(graph.graph_copy(segment.graph, {}))
    _retarget(graph, device)
    return dataclasses.replace(segment, graph=graph, weights=weights, subgraphs=subgraphs)


def _retarget(graph: Graph, device: torch.device) -> None:
    """Every device that a call names becomes ``device``: a segment runs on one."""

    def changed(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    def leaf(argument: Any) -> bool:
        return isinstance(argument, Node)

    for node in graph.nodes:
        node.args = tree_map(changed, node.args, is_leaf=leaf)
        node.kwargs = tree_map(changed, node.kwargs, is_leaf=leaf)


def compile_segment(
    segment: Segment,
    described: Mapping[str, Any],
    operators: Operators,
    device: torch.device,
    *,
    mode: str,
    freezing: bool,
    kind: str,
) -> Artifact:
    """Compile for ``device``, which ``inductor`` and ``aot`` must find here.

    :param described: the inputs, as :func:`hardpoint_cpu.shapes.describe` says.
    :param mode: ``eager``, ``inductor`` or ``aot``. :param kind: the artifact's format.
    :raises CompileError: with the reason in words.
    """
    if mode == "eager":
        return eager.compile_segment(on(segment, CPU), operators, kind)
    refuse_negative(segment)
    home = on(segment, CPU)
    there, tuning = on(segment, device), Tuning(freezing)
    if mode == "inductor":
        data = wire.encode(home, operators)
        inductor.build(there.module(), described, tuning, home.executed, device)
        metadata = inductor.metadata(home, described, tuning)
        return Artifact(kind, {wire.FILE: data}, home.named_weights(), metadata)
    made = aot.compile_segment(there, described, tuning, device, kind)
    known = home.named_weights()
    weights = {n: known[n] if n in known else tensor.cpu() for n, tensor in made.weights.items()}
    return dataclasses.replace(made, weights=weights)


def load(artifact: Artifact, operators: Operators, device: torch.device, mode: str) -> Executable:
    """Open on ``device`` what :func:`compile_segment` made in ``mode``.

    :raises ArtifactError: damaged, or it does not fit here, with the reason.
    """
    if mode == "eager":
        return eager.load(artifact, operators, device)
    if mode == "inductor":
        return inductor.load(artifact, operators, device)
    return aot.load(artifact, device)
