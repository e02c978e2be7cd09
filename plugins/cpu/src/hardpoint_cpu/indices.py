"""Negative indices where PyTorch takes none, and its compiler counts them from the end.

Inductor refuses an index that is out of range, but reads -1 as the last place in the three
operators below, which eager PyTorch refuses. The greatest number takes a negative one's place.
"""

from __future__ import annotations

import copy

import torch
from torch.fx import Graph, GraphModule, Node

from hardpoint_cpu.segment import Segment

aten = torch.ops.aten
_OPERATORS = (aten.index_select.default, aten.index_copy.default, aten.index_add.default)
_PLACES = 2  # which argument holds them


def refuse_negative(segment: Segment) -> None:
    """Let ``segment``'s compiled code refuse them; changes it, and not the program's sub-graphs."""
    held = {
        node for node in segment.graph.nodes
        if node.op == "get_attr" and _are_places(segment.weights.get(str(node.target)))
    }  # fmt: skip
    _refuse_in(segment.graph, held)
    for attribute, sub in segment.subgraphs.items():
        own = segment.subgraphs[attribute] = copy.deepcopy(sub)
        for module in own.modules():
            if isinstance(module, GraphModule):
                _refuse_in(module.graph, set())
                module.recompile()


def _are_places(weight: tuple[str, torch.Tensor] | None) -> bool:
    """Whether it is a tensor of integers, none of them negative."""
    if weight is None or weight[1].dtype not in (torch.int32, torch.int64):
        return False
    return not weight[1].numel() or int(weight[1].min()) >= 0


def _refuse_in(graph: Graph, held: set[Node]) -> None:
    for node in list(graph.nodes):
        if node.target not in _OPERATORS:
            continue
        places = node.args[_PLACES]
        if not isinstance(places, Node) or places in held:
            continue
        greatest = torch.iinfo(places.meta["val"].dtype).max
        with graph.inserting_before(node):
            negative = graph.call_function(aten.lt.Scalar, (places, 0))
            refused = graph.call_function(aten.masked_fill.Scalar, (places, negative, greatest))
        node.update_arg(_PLACES, refused)
