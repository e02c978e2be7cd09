"""Make a program independent of how its tensors lie in memory.

A functional program's meaning is in its values. Some operators of PyTorch look at memory all the
same. ``view`` fails where the strides are not the traced ones, and they are not: attention, for
one, lays its result out by that of its inputs, by the gradient mode and by the processor. ``empty``
gives what the memory held before, which no comparison with eager survives. ``as_strided`` gives
other values for the same tensor in another layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Graph, Node

from hardpoint.errors import CaptureError

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
_STRIDED = (_aten.as_strided.default, _aten.as_strided_copy.default)


def forget_memory(graph: Graph) -> None:
    """Replace such operators, in place, by others that give the same for any layout.

    :raises CaptureError: ``as_strided`` of a tensor that is a part of another, or written through.
    """
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _INSTEAD:
            target, count, dropped = _INSTEAD[node.target]
            node.target = target
            node.args = node.args[:count]
            node.kwargs = {k: v for k, v in node.kwargs.items() if k not in dropped}
        elif node.target in _STRIDED:
            _lay_out(graph, node)
        elif node.target is _aten.as_strided_scatter.default:
            raise _depends_on_memory(node)


def _lay_out(graph: Graph, strided: Node) -> None:
    """Put the tensor that ``strided`` reads into the memory order that it was traced with."""
    source = strided.args[0]
    assert isinstance(source, Node)
    fake = source.meta["val"]
    order = _memory_order(fake)
    if order is None:
        raise _depends_on_memory(strided)
    with graph.inserting_before(strided), fake.fake_mode:
        permuted = graph.call_function(_aten.permute.default, (source, order))
        permuted.meta = source.meta | {"val": fake.permute(order)}
        copied = graph.call_function(
            _aten.clone.default, (permuted,), {"memory_format": torch.contiguous_format}
        )
        copied.meta = source.meta | {
            "val": permuted.meta["val"].clone(memory_format=torch.contiguous_format)
        }
    strided.replace_input_with(source, copied)


def _memory_order(fake: torch.Tensor) -> list[int] | None:
    """Its dimensions, outermost in memory first; ``None`` if it does not fill its memory."""
    sizes, strides = _hints(fake.shape), _hints(fake.stride())
    order = sorted(range(len(sizes)), key=lambda d: (-strides[d], d))
    filled = 1
    for dim in reversed(order):
        if sizes[dim] != 1 and strides[dim] != filled:
            return None
        filled *= sizes[dim]
    return order if fake.storage_offset() == 0 else None


def _hints(sizes: Sequence[int | torch.SymInt]) -> list[int]:
    """Sizes at the examples."""
    return [s if isinstance(s, int) else int(s.node.hint) for s in sizes]


def _depends_on_memory(node: Node) -> CaptureError:
    return CaptureError(
        f"{node.name} ({node.target}) depends on how its tensor lies in memory",
        cause="it reads or writes beyond the tensor it is given, or writes through strides",
        remedy="use unfold, or indexing, in its place",
    )
