"""Rewrites after conversion that keep NaN where PyTorch keeps it.

OpenVINO's CPU kernels compare with instructions that give the second operand where one is NaN, so
that ``relu``, ``clamp``, ``maximum``, ``max`` and pooling lose it in silence
(research/backends.md, section 3). ``Elu`` with alpha 0 is the same function as ``Relu``, is fused
into convolutions like it, costs the same, and keeps NaN. The others take what they compare in the
order that keeps NaN, or ask for NaN and put it back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import openvino as ov
from openvino import opset13 as op

_FLOATS = (ov.Type.f32, ov.Type.f16, ov.Type.bf16)


def keep_nan(model: ov.Model) -> None:
    """Change ``model`` in place; results for numbers and infinities stay bit by bit the same."""
    for node in model.get_ordered_ops():
        rewrite = _REWRITES.get(node.get_type_name())
        if rewrite is None or node.get_input_element_type(0) not in _FLOATS:
            continue
        targets = list(node.output(0).get_target_inputs())
        made = rewrite(node)
        made.set_friendly_name(node.get_friendly_name())
        for target in targets:
            target.replace_source_output(made.output(0))
    model.validate_nodes_and_infer_types()


def _number(node: ov.Node, value: float) -> ov.Node:
    """A scalar of the type of ``node``'s first input."""
    number = op.constant(np.float32(value))
    kind = node.get_input_element_type(0)
    return number if kind == ov.Type.f32 else op.convert(number, kind)


def _with_nan(node: ov.Node, is_nan: ov.Node) -> ov.Node:
    return op.select(is_nan, _number(node, np.nan), node.output(0))


def _relu(node: ov.Node) -> ov.Node:
    return op.elu(node.input_value(0), 0.0)


def _clamp(node: ov.Node) -> ov.Node:
    limits = node.get_attributes()
    low, high = _number(node, limits["min"]), _number(node, limits["max"])
    return op.minimum(high, op.maximum(low, node.input_value(0)))


def _chosen(node: ov.Node) -> ov.Node:
    """``Maximum`` or ``Minimum``: the second operand's NaN comes through by itself."""
    first = node.input_value(0)
    if first.get_node().get_type_name() == "Constant":
        return node
    return op.select(op.is_nan(first), first, node.output(0))


def _reduced(node: ov.Node) -> ov.Node:
    keep = bool(node.get_attributes()["keep_dims"])
    return _with_nan(
        node, op.reduce_logical_or(op.is_nan(node.input_value(0)), node.input_value(1), keep)
    )


def _pooled(node: ov.Node) -> ov.Node:
    """The largest of a window's "is NaN" as numbers tells whether it holds one."""
    a = node.get_attributes()
    marked = op.convert(op.is_nan(node.input_value(0)), np.float32)
    found = op.max_pool(
        marked, a["strides"], a["dilations"], a["pads_begin"], a["pads_end"], a["kernel"],
        a["rounding_type"], a["auto_pad"],
    )  # fmt: skip
    return _with_nan(node, op.greater(found.output(0), op.constant(np.float32(0.0))))


def _exp(node: ov.Node) -> ov.Node:
    return op.select(op.is_nan(node.input_value(0)), node.input_value(0), node.output(0))


_REWRITES: dict[str, Callable[[ov.Node], ov.Node]] = {
    "Relu": _relu,
    "Clamp": _clamp,
    "Maximum": _chosen,
    "Minimum": _chosen,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "MaxPool": _pooled,
    "Exp": _exp,
}
