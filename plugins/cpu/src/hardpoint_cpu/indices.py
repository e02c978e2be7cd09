"""Negative indices where PyTorch takes none, and its compiler counts them from the end.

Inductor refuses an index that is out of range, but reads -1 as the last place in the three
operators below, which eager PyTorch refuses. The greatest number takes a negative one's place.
"""

from __future__ import annotations

import torch
from torch.fx import Node

from hardpoint_cpu.segment import Segment

aten = torch.ops.aten
_OPERATORS = (aten.index_select.default, aten.index_copy.default, aten.index_add.default)
_PLACES = 2  # which argument holds them


def refuse_negative(segment: Segment) -> None:
    """Let ``segment``'s compiled code refuse negative indices; changes it in place."""
    for node in list(segment.graph.nodes):
        if node.target not in _OPERATORS:
            continue
        places = node.args[_PLACES]
        if not isinstance(places, Node) or _fit(segment, places):
            continue
        value = places.meta["val"]
        with segment.graph.inserting_before(node):
            negative = segment.graph.call_function(aten.lt.Scalar, (places, 0))
            refused = segment.graph.call_function(
                aten.masked_fill.Scalar, (places, negative, torch.iinfo(value.dtype).max)
            )
        negative.meta = {"val": value.to(torch.bool)}
        refused.meta = {"val": value}
        node.update_arg(_PLACES, refused)


def _fit(segment: Segment, places: Node) -> bool:
    """Whether they are weights, none of them negative."""
    if places.op != "get_attr" or places.target not in segment.weights:
        return False
    held = segment.weights[str(places.target)][1]
    return not held.numel() or int(held.min()) >= 0
