"""Make a program independent of how its tensors lie in memory.

A functional program's meaning is in its values. Two operators of PyTorch look at memory all the
same: ``view`` fails where the strides are not the traced ones, and they are not: attention,
for one, lays its result out by that of its inputs, by the gradient mode and by the processor.
``empty`` gives what the memory held before, which no comparison with eager survives.
"""

from __future__ import annotations

import torch
from torch.fx import Graph

_aten = torch.ops.aten
# operator -> (operator in its place, how many positional arguments to keep, keywords to drop)
_INSTEAD = {
    _aten.view.default: (_aten.reshape.default, 2, ()),
    _aten._unsafe_view.default: (_aten.reshape.default, 2, ()),
    _aten.empty_like.default: (_aten.zeros_like.default, 1, ()),
    _aten.new_empty.default: (_aten.new_zeros.default, 2, ()),
    _aten.empty.memory_format: (_aten.zeros.default, 1, ("memory_format",)),
    _aten.empty_strided.default: (_aten.zeros.default, 1, ()),
    _aten.empty_permuted.default: (_aten.zeros.default, 1, ()),
    _aten.new_empty_strided.default: (_aten.new_zeros.default, 2, ()),
}


def forget_memory(graph: Graph) -> None:
    """Replace ``view`` by ``reshape`` and ``empty`` by ``zeros``, in place."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in _INSTEAD:
            target, count, dropped = _INSTEAD[node.target]
            node.target = target
            node.args = node.args[:count]
            node.kwargs = {k: v for k, v in node.kwargs.items() if k not in dropped}
