"""Rewrites after conversion that keep NaN, and rows without a key, as PyTorch has them.

OpenVINO's CPU kernels compare with instructions that give the second operand where one is NaN, so
that ``relu``, ``clamp``, ``maximum``, ``max`` and pooling lose it in silence
(research/backends.md, section 3). ``Elu`` with alpha 0 is the same function as ``Relu``, is fused
into convolutions like it, costs the same, and keeps NaN. The others take what they compare in the
order that keeps NaN, or ask for NaN and put it back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hardpoint_openvino.runtime import op, ov

_MASKED = "ScaledDotProductAttention"
_FLOATS = (ov.Type.f32, ov.Type.f16, ov.Type.bf16)


def as_in_pytorch(model: ov.Model, *, holds_nan: bool = True) -> None:
    """Change ``model`` in place; what was right stays bit by bit the same.

    :param holds_nan: the arithmetic to come holds NaN and infinities; int8 does not.
    """
    rewrites = _REWRITES if holds_nan else {_MASKED: _attention}
    for node in model.get_ordered_ops():
        rewrite = rewrites.get(node.get_type_name())
        if rewrite is None or node.get_input_element_type(0) not in _FLOATS:
            continue
        before = [list(port.get_target_inputs()) for port in node.outputs()]
        made = rewrite(node)
        outputs = made.outputs() if isinstance(made, ov.Node) else made
        for targets, output in zip(before, outputs, strict=False):
            for target in targets:
                target.replace_source_output(output)
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
    x = node.input_value(0)
    return op.select(op.less(x, low), low, op.select(op.less(high, x), high, x))


def _chosen(node: ov.Node) -> ov.Node:
    """``Maximum`` or ``Minimum``: a comparison with NaN is false.

    Not by the order of operands alone: OpenVINO makes ``Clamp`` of a pair of them.
    """
    a, b = node.input_value(0), node.input_value(1)
    if a.get_node().get_type_name() == "Constant":
        a, b = b, a
    kept = op.less(a, b) if node.get_type_name() == "Maximum" else op.less(b, a)
    chosen = op.select(kept, b, a)  # a where it is NaN
    if b.get_node().get_type_name() == "Constant":
        return chosen
    return op.select(op.is_nan(b), b, chosen)


def _classes(node: ov.Node, *, least: float) -> ov.Node:
    """Of each number: 2 where NaN, 0 where ``least``, else 1; the largest tells what is among them.

    Of nothing but infinities, OpenVINO's largest is the largest finite number.
    """
    x = node.input_value(0)
    other = op.not_equal(x, _number(node, least))
    return op.select(
        op.is_nan(x), _number(node, 2), op.select(other, _number(node, 1), _number(node, 0))
    )


def _by_class(node: ov.Node, found: ov.Node | ov.Output, *, least: float) -> ov.Node:
    known = op.select(op.less(_number(node, 0.5), found), node.output(0), _number(node, least))
    return op.select(op.less(_number(node, 1.5), found), _number(node, np.nan), known)


def _reduced(node: ov.Node) -> ov.Node:
    least = -np.inf if node.get_type_name() == "ReduceMax" else np.inf
    keep = bool(node.get_attributes()["keep_dims"])
    found = op.reduce_max(_classes(node, least=least), node.input_value(1), keep)
    return _by_class(node, found, least=least)


def _pooled(node: ov.Node) -> ov.Node:
    a = node.get_attributes()
    found = op.max_pool(
        _classes(node, least=-np.inf), a["strides"], a["dilations"], a["pads_begin"],
        a["pads_end"], a["kernel"], a["rounding_type"], a["auto_pad"],
    )  # fmt: skip
    return _by_class(node, found.output(0), least=-np.inf)


def _passed_on(node: ov.Node) -> ov.Node:
    return op.select(op.is_nan(node.input_value(0)), node.input_value(0), node.output(0))


def _to_bool(node: ov.Node) -> ov.Node:
    if node.get_output_element_type(0) != ov.Type.boolean:
        return node
    return op.not_equal(node.input_value(0), _number(node, 0))


def _greater(node: ov.Node) -> ov.Node:
    """``a > b`` is true of NaN, ``b < a`` is not."""
    return op.less(node.input_value(1), node.input_value(0))


def _greater_equal(node: ov.Node) -> ov.Node:
    return op.less_equal(node.input_value(1), node.input_value(0))


def _softmax(node: ov.Node) -> ov.Node:
    """NaN stays where it is, and must fill its row: a row's sum is 1 or NaN.

    Not needed where the rows multiply a matrix: NaN fills the results by itself.
    """
    users = [user.get_node() for user in node.output(0).get_target_inputs()]
    if users and all(_multiplies(user, node) for user in users):
        return node
    axis = op.constant(np.int64(node.get_attributes()["axis"]))
    total = op.reduce_sum(node.output(0), axis, True)
    return op.add(node.output(0), op.multiply(total, _number(node, 0)))


def _multiplies(user: ov.Node, node: ov.Node) -> bool:
    first = user.get_type_name() == "MatMul" and user.input_value(0).get_node()
    return bool(first) and first.get_friendly_name() == node.get_friendly_name()


def _log_softmax(node: ov.Node) -> ov.Node:
    """As :func:`_softmax`; a row's sum says nothing here, since it may hold -inf."""
    axis = op.constant(np.int64(node.get_attributes()["axis"]))
    return _with_nan(node, op.reduce_logical_or(op.is_nan(node.output(0)), axis, True))


def _attention(node: ov.Node) -> ov.Node:
    """A query that the mask leaves no key gives 0 in PyTorch, NaN here."""
    if node.get_input_size() < 4:
        return node
    mask = node.input_value(3)
    last = op.constant(np.int64(-1))
    if mask.get_element_type() == ov.Type.boolean:
        seen = op.reduce_logical_or(mask, last, True)
    elif mask.get_partial_shape().rank.is_dynamic or mask.get_partial_shape().rank.get_length():
        least = op.convert(op.constant(np.float32(-np.inf)), mask.get_element_type())
        seen = op.reduce_logical_or(op.not_equal(least, mask), last, True)
    else:  # a number: there is no mask
        return node
    return op.select(seen, node.output(0), _number(node, 0))


def _ranked(node: ov.Node) -> list[ov.Output]:
    """NaN is the greatest of all: above infinity, for which the greatest number stands in."""
    a, x = node.get_attributes(), node.input_value(0)
    finite = op.select(
        op.less(x, _number(node, np.inf)), x, _number(node, float(np.finfo(np.float32).max))
    )
    ranked = op.select(op.is_nan(x), _number(node, np.inf), finite)
    found = op.topk(
        ranked, node.input_value(1), a["axis"], a["mode"], a["sort"], a["index_element_type"],
        stable=a.get("stable", False),
    )  # fmt: skip
    return [op.gather_elements(x, found.output(1), a["axis"]).output(0), found.output(1)]


_REWRITES: dict[str, Callable[[ov.Node], ov.Node | list[ov.Output]]] = {
    "Relu": _relu,
    "Clamp": _clamp,
    "Maximum": _chosen,
    "Minimum": _chosen,
    "ReduceMax": _reduced,
    "ReduceMin": _reduced,
    "MaxPool": _pooled,
    "Exp": _passed_on,
    "HSigmoid": _passed_on,
    "Convert": _to_bool,
    "TopK": _ranked,
    "Greater": _greater,
    "GreaterEqual": _greater_equal,
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    _MASKED: _attention,
}
