"""Which nodes of a graph are a model's layers, and which weight each multiplies by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.fx import Node

_aten = torch.ops.aten
_OTHERS = {
    "convolution", "_convolution", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "bilinear", "lstm", "gru", "rnn_tanh", "rnn_relu",
}  # fmt: skip
Weights = Mapping[str, tuple[str, torch.Tensor]]


@dataclass(frozen=True)
class Layer:
    """One product of data by a weight.

    :param kind: ``"linear"``, ``"embedding"``, or the operator's name.
    :param weight: the segment's attribute, or ``""`` where it is computed.
    :param input: what is multiplied; an embedding's indices.
    :param transposed: the weight is ``[columns, rows]``, as ``x @ weight`` takes it.
    """

    node: Node
    kind: str
    weight: str
    input: Node
    bias: Node | None = None
    transposed: bool = False

    def shape(self, weights: Weights) -> tuple[int, int]:
        """Numbers of inputs (columns of the weight) and of outputs (rows) of a linear layer."""
        first, second = weights[self.weight][1].shape
        return (first, second) if self.transposed else (second, first)


def layer(node: Node, weights: Weights) -> Layer | None:
    """``node`` as a layer; ``None`` for what is none, as products of two activations."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    args = node.args
    if target is _aten.embedding.default:
        return _layer(node, "embedding", args[0], args[1], weights)
    if target is _aten.linear.default:
        return _layer(node, "linear", args[1], args[0], weights, args[2] if len(args) > 2 else None)
    if target in (_aten.mm.default, _aten.matmul.default) and _is_matrix(args[1], weights):
        return _layer(node, "linear", args[1], args[0], weights, transposed=True)
    if target is _aten.addmm.default and _is_matrix(args[2], weights) and not node.kwargs:
        return _layer(node, "linear", args[2], args[1], weights, args[0], transposed=True)
    if target._opname in _OTHERS:
        weight = args[1] if len(args) > 1 else None
        return _layer(node, target._opname, weight, args[0], weights)
    return None


def _layer(
    node: Node, kind: str, weight: object, data: object, weights: Weights,
    bias: object = None, *, transposed: bool = False,
) -> Layer:  # fmt: skip
    assert isinstance(data, Node)
    held = isinstance(weight, Node) and weight.op == "get_attr" and str(weight.target) in weights
    name = str(weight.target) if held and isinstance(weight, Node) else ""
    return Layer(node, kind, name, data, bias if isinstance(bias, Node) else None, transposed)


def _is_matrix(value: object, weights: Weights) -> bool:
    """Whether an operand of a product is a weight: two activations make no layer."""
    if not isinstance(value, Node) or value.op != "get_attr":
        return False
    found = weights.get(str(value.target))
    return found is not None and found[1].dim() == 2


def must_stay(node: Node) -> bool:
    """For ``Graph.eliminate_dead_code``: inputs are part of the interface."""
    return node.op in ("placeholder", "output") or node.is_impure()
