"""Figures from shapes: operations and bytes of each node, at the sizes of the example inputs.

Matrix-like operators only (2 operations a multiply-add, the usual convention); everything else
counts as zero. ``torch.utils.flop_counter`` is not used: it counts scaled dot-product attention on
the CPU as 0 (pytorch#195460), and it has no formula for undecomposed ``aten.linear``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.fx import Node

BASIS = "operations and bytes counted from the shapes of the example inputs; no timing"


def sizes(node: object) -> tuple[int, ...]:
    """The node's shape with symbols at their example sizes; an unknown size counts as 1."""
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(map(hint, value.shape)) if isinstance(value, torch.Tensor) else ()


def hint(size: int | torch.SymInt) -> int:
    """A size at the example inputs; 1 where only a run can tell."""
    if isinstance(size, int):
        return size
    known = size.node.hint
    return 1 if known is None else int(known)


def value_bytes(node: Node) -> int:
    """Bytes of the tensor (or tensors) that ``node`` gives."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return sum(
        math.prod(map(hint, v.shape)) * v.dtype.itemsize
        for v in values
        if isinstance(v, torch.Tensor)
    )


def flops(node: Node) -> int:
    """Floating-point operations of a matrix-like node, else 0."""
    formula = _FORMULAS.get(getattr(node.target, "overloadpacket", None))
    return formula(node) if formula else 0


def total_flops(nodes: Iterable[Node]) -> int:
    """The sum over ``nodes``."""
    return sum(map(flops, nodes))


def _contraction(node: Node) -> int:
    """out[..., m, n] of a product over the first operand's last dimension."""
    inner = sizes(node.args[0])[-1:] or (1,)
    return 2 * math.prod(sizes(node)) * inner[0]


def _addmm(node: Node) -> int:
    return 2 * math.prod(sizes(node)) * (sizes(node.args[1])[-1:] or (1,))[0]


def _convolution(node: Node) -> int:
    """Each output element sums over weight[out, in/groups, *kernel] without its first dimension."""
    return 2 * math.prod(sizes(node)) * math.prod(sizes(node.args[1])[1:])


def _attention(node: Node) -> int:
    """Q·Kᵀ and P·V of query (..., q, d), key (..., k, d), value (..., k, v)."""
    query, key, value = (sizes(a) for a in node.args[:3])
    if not query or not key or not value:
        return 0
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


_aten = torch.ops.aten
_FORMULAS: dict[object, Callable[[Node], int]] = {
    _aten.linear: _contraction,
    _aten.matmul: _contraction,
    _aten.mm: _contraction,
    _aten.bmm: _contraction,
    _aten.addmm: _addmm,
    _aten.baddbmm: _addmm,
    _aten.convolution: _convolution,
    _aten.conv1d: _convolution,
    _aten.conv2d: _convolution,
    _aten.conv3d: _convolution,
    _aten.scaled_dot_product_attention: _attention,
}
