"""Negative indices where PyTorch takes none: ONNX Runtime is made to refuse them too.

Its Gather and Scatter refuse an index past the end, and count a negative one from the end. PyTorch
does so for ``x[i]``, ``take`` and ``index_fill``, and refuses it in an embedding, for one. There a
number past any end takes a negative one's place: two cheap nodes, and none for a tensor that the
model holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from hardpoint_onnxruntime.weights import held_weights

aten = torch.ops.aten
_INTEGERS = (torch.int64, torch.int32)
# Past the end also for a provider that looks at the lower 32 bits alone.
_BEYOND = 2**62 + 2**31 - 1
# Which argument holds places, by the operator's name.
_PLACES = {
    "embedding": 1, "embedding_bag": 1, "_embedding_bag": 1, "_embedding_bag_forward_only": 1,
    "index_select": 2, "gather": 2, "scatter": 2, "scatter_add": 2, "scatter_reduce": 2,
}  # fmt: skip
# Of these too, but for the one number that stands for "none": which argument says it.
_TARGETS = {"nll_loss_forward": 4, "nll_loss": 4, "cross_entropy_loss": 4}
_NO_TARGET = -100  # their default
# These become ``x[i] = ...``, which counts back: their decompositions replace negative ones first.
_BECOME_ANOTHER = (aten.index_copy.default, aten.index_add.default)
# These become index_copy, and do count back.
_COUNT_BACK = (aten.index_fill.int_Scalar, aten.index_fill.int_Tensor)
_WORDS = ("out of data bounds", "invalid index found", "invalid indice found",
          "out of range value in index")  # fmt: skip


def decompose_refusing_negative(table: dict[Any, Callable[..., Any]]) -> None:
    """Change PyTorch's decompositions in ``table`` whose results would count indices back."""
    for target in _BECOME_ANOTHER:
        if target in table:
            table[target] = _refusing(table[target])
    for target in _COUNT_BACK:
        if target in table:
            table[target] = _counted(table[target])


def _refusing(decomposition: Callable[..., Any]) -> Callable[..., Any]:
    def decomposed(
        x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, **others: Any
    ) -> Any:
        wide = index.to(torch.int64)
        return decomposition(x, dim, wide.masked_fill(wide < 0, _BEYOND), source, **others)

    return decomposed


def _counted(decomposition: Callable[..., Any]) -> Callable[..., Any]:
    def decomposed(x: torch.Tensor, dim: int, index: torch.Tensor, value: Any) -> Any:
        length = x.shape[dim] if x.dim() else 1
        return decomposition(x, dim, torch.where(index < 0, index + length, index), value)

    return decomposed


def refuse_negative(program: ExportedProgram) -> None:
    """Change a decomposed ``program`` in place: see above."""
    held, changed = held_weights(program), program.graph_signature.buffers_to_mutate.values()
    specs = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    known = {n for n, t in held.items() if specs[n.name] not in changed and _fits(t)}
    for node in list(program.graph.nodes):
        name = getattr(node.target, "_opname", "")
        at = _PLACES.get(name, 1 if name in _TARGETS else None)
        if at is None or not isinstance(node.args[at], Node):
            continue
        places: Node = node.args[at]
        if places.meta["val"].dtype not in _INTEGERS or places in known:
            continue
        ignored = None
        if name in _TARGETS:
            last = _TARGETS[name]
            ignored = node.args[last] if len(node.args) > last else _NO_TARGET
        node.update_arg(at, _replaced(program, node, places, ignored))


def _replaced(program: ExportedProgram, user: Node, places: Node, ignored: object) -> Node:
    graph, value = program.graph, places.meta["val"]
    with graph.inserting_before(user):
        if value.dtype is not torch.int64:
            places = graph.call_function(aten._to_copy.default, (places,), {"dtype": torch.int64})
            value = value.to(torch.int64)
            places.meta = {"val": value}
        negative = graph.call_function(aten.lt.Scalar, (places, 0))
        negative.meta = {"val": value.to(torch.bool)}
        if ignored is not None:
            wanted = graph.call_function(aten.ne.Scalar, (places, ignored))
            wanted.meta = {"val": negative.meta["val"]}
            negative = graph.call_function(aten.logical_and.default, (negative, wanted))
            negative.meta = {"val": wanted.meta["val"]}
        made: Node = graph.call_function(aten.masked_fill.Scalar, (places, negative, _BEYOND))
        made.meta = {"val": value}
    return made


def _fits(held: torch.Tensor) -> bool:
    return held.dtype in _INTEGERS and (not held.numel() or int(held.min()) >= 0)


def out_of_range(error: Exception) -> str:
    """What ``error`` says of an index that is out of range; ``""`` where it speaks of another."""
    words = str(error)
    if not any(word in words.lower() for word in _WORDS):
        return ""
    node = re.search(r"Name:'([^']+)'", words)
    index = re.search(r"(?:idx=|index = |indice = )(-?\d+)", words)
    number = int(index[1]) if index else 0
    told = "a negative index" if number == _BEYOND else f"the index{f' {number}' if index else ''}"
    return f"{told}{f' of {node[1]}' if node else ''} has no place in its tensor"
