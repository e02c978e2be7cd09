"""Where ONNX Runtime's kernels lose a NaN that PyTorch keeps: the graph is made to keep it.

Its MaxPool and LSTM give plausible numbers for windows and sequences that hold a NaN, its ReduceMax
now and then too; its TopK, ArgMax and ArgMin do not count a NaN as the greatest (or least), as
PyTorch does; and the exporter's attention gives 0 for it. What is added costs little: the average
of a window is NaN where the window holds one, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

_FLOATS: Mapping[Any, Any] = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.DOUBLE: np.float64,
    ir.DataType.FLOAT16: np.float16,
}
_DILATED_AVERAGES = 19  # the opset that has them


def repair(model: Any) -> None:
    """Change ``model`` in place."""
    opset = model.opset_imports.get("", 0)
    for node in list(model.graph):
        make = _REPAIRS.get(node.op_type)
        if make is not None and node.domain == "" and node.inputs[0].dtype in _FLOATS:
            make(model.graph, node, opset)


class _Writer:
    """Makes nodes beside one that is there.

    :param numbers: numpy's dtype of the node's data.
    """

    def __init__(self, node: Any) -> None:
        self.made: list[Any] = []
        self.stem = node.name or node.outputs[0].name
        self.dtype = node.inputs[0].dtype
        self.numbers = _FLOATS[self.dtype]

    def op(self, kind: str, *inputs: Any, like: Any = None, **attributes: Any) -> Any:
        """One node; its result has the type and shape of ``like``, where that is given."""
        node = ir.node(kind, inputs, attributes or None, name=f"{self.stem}_nan_{len(self.made)}")
        [result] = node.outputs
        result.name = f"{node.name}_value"
        if like is not None:
            result.type, result.shape = like.type, like.shape
        self.made.append(node)
        return result

    def constant(self, value: Any) -> Any:
        """A small tensor."""
        return self.op("Constant", value=ir.tensor(value))

    def number(self, value: float) -> Any:
        """A number of the node's dtype."""
        return self.constant(np.array(value, dtype=self.numbers))

    def marks(self, value: Any) -> Any:
        """1 where it is NaN, 0 elsewhere, as numbers."""
        return self.op("Cast", self.op("IsNaN", value), to=ir.DataType.FLOAT)


def _replace(graph: Any, old: Any, new: Any, uses: Sequence[Any]) -> None:
    for user, index in uses:
        user.replace_input_with(index, new)
    for i, output in enumerate(graph.outputs):
        if output is old:
            # Results keep their names: artifacts go by them.
            old.name, new.name = f"{old.name}_raw", old.name
            graph.outputs[i] = new


def _after(graph: Any, node: Any, value: Any, write: _Writer, marked: Callable[[], Any]) -> None:
    """``value``, but NaN where ``marked`` says so, for all that used it."""
    uses = tuple(value.uses())
    new = write.op("Where", marked(), write.number(float("nan")), value, like=value)
    graph.insert_after(node, write.made)
    _replace(graph, value, new, uses)


def _max_pool(graph: Any, node: Any, opset: int) -> None:
    """The average of a window is NaN where it holds one; and only there, without infinities."""
    attributes = dict(node.attributes)
    dilated = "dilations" in attributes and any(d != 1 for d in attributes["dilations"].value)
    places = len(node.outputs) > 1 and node.outputs[1].uses()
    if places or (dilated and opset < _DILATED_AVERAGES):
        return
    taken = ["kernel_shape", "pads", "strides", "ceil_mode", *(["dilations"] if dilated else [])]
    kept = {name: attributes[name].value for name in taken if name in attributes}
    write = _Writer(node)
    value = node.outputs[0]

    def marked() -> Any:
        least, most = write.number(-1), write.number(1)
        small = write.op("Clip", node.inputs[0], least, most, like=node.inputs[0])
        mean = write.op("AveragePool", small, like=value, count_include_pad=0, **kept)
        return write.op("IsNaN", mean)

    _after(graph, node, value, write, marked)


def _recurrent(graph: Any, node: Any, opset: int) -> None:
    """NaN spreads from its step on, and from the initial state, in its row of the batch."""
    direction = node.attributes.get("direction")
    ways = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}[
        direction.value if direction is not None else "forward"
    ]
    states = [node.inputs[i] for i in (5, 6) if i < len(node.inputs) and node.inputs[i] is not None]

    def steps(write: _Writer) -> Any:  # [steps, batch]
        # Two infinities in one row may meet as a NaN behind the weights.
        last, two = write.constant(np.array([2])), write.constant(np.array(2, dtype=np.float32))
        nan = write.op("Mul", write.marks(node.inputs[0]), two)
        infinite = write.op("Cast", write.op("IsInf", node.inputs[0]), to=ir.DataType.FLOAT)
        total = write.op("ReduceSum", write.op("Add", nan, infinite), last, keepdims=0)
        return write.op("Cast", write.op("GreaterOrEqual", total, two), to=ir.DataType.FLOAT)

    def initial(write: _Writer) -> Any:  # [directions, batch], or a zero
        last, total = write.constant(np.array([2])), write.constant(np.array(0, dtype=np.float32))
        for state in states:
            infinite = write.op("Cast", write.op("IsInf", state), to=ir.DataType.FLOAT)
            odd = write.op("Add", write.marks(state), infinite)
            total = write.op("Add", total, write.op("ReduceMax", odd, last, keepdims=0))
        return total

    def positive(write: _Writer, value: Any, axis: int) -> Any:
        zero = write.constant(np.array(0, dtype=np.float32))
        greater = write.op("Greater", value, zero)
        return write.op("Unsqueeze", greater, write.constant(np.array([axis])))

    def in_steps(write: _Writer) -> Any:  # [steps, directions, batch, 1]
        first, second = write.constant(np.array(0)), write.constant(np.array([1]))
        marks = steps(write)
        each = [
            write.op("Unsqueeze", write.op("CumSum", marks, first, reverse=way), second)
            for way in ways
        ]
        both = each[0] if len(each) == 1 else write.op("Concat", *each, axis=1)
        return positive(write, write.op("Add", both, initial(write)), 3)

    def at_the_end(write: _Writer) -> Any:  # [directions, batch, 1]
        ever = write.op("ReduceMax", steps(write), write.constant(np.array([0])), keepdims=1)
        return positive(write, write.op("Add", ever, initial(write)), 2)

    for i, output in enumerate(node.outputs):
        if output.uses() or output in graph.outputs:
            write, marked = _Writer(node), (at_the_end if i else in_steps)
            write.stem += f"_{i}"
            _after(graph, node, output, write, lambda m=marked, w=write: m(w))  # type: ignore[misc]


def _ordered(sign: float) -> Callable[[Any, Any, int], None]:
    """Give it numbers in PyTorch's order: NaN beyond infinity."""

    def change(graph: Any, node: Any, opset: int) -> None:
        value, write = node.inputs[0], _Writer(node)
        beyond = write.number(sign * float("inf"))
        most = write.number(sign * float(np.finfo(write.numbers).max))
        nan = write.op("IsNaN", value)
        below = write.op("Min" if sign > 0 else "Max", value, most, like=value)
        key = write.op("Where", nan, beyond, below, like=value)
        node.replace_input_with(0, key)
        graph.insert_before(node, write.made)
        if node.op_type != "TopK":
            return
        values, indices = node.outputs
        uses = tuple(values.uses())
        if not (uses or values in graph.outputs):
            return
        axis = node.attributes.get("axis")
        after = _Writer(node)
        after.stem += "_values"
        at = axis.value if axis is not None else -1
        new = after.op("GatherElements", value, indices, like=values, axis=at)
        graph.insert_after(node, after.made)
        _replace(graph, values, new, uses)

    return change


def _extreme(graph: Any, node: Any, opset: int) -> None:
    """ReduceMax and ReduceMin see a NaN in some places only; a mean sees all."""
    write, value = _Writer(node), node.outputs[0]
    kept = {name: attribute.value for name, attribute in node.attributes.items()}

    def marked() -> Any:
        small = write.op("Clip", node.inputs[0], write.number(-1), write.number(1))
        return write.op("IsNaN", write.op("ReduceMean", small, *node.inputs[1:], **kept))

    _after(graph, node, value, write, marked)


def _attention(graph: Any, node: Any, opset: int) -> None:
    """A row that is masked whole gives 0, as in PyTorch, and a NaN in any other row stays.

    The exporter masks by the least float32, so that such a row becomes a mean, and then gives 0
    wherever it finds a NaN.
    """
    asked = node.meta.get("node")
    target = getattr(getattr(asked, "target", None), "overloadpacket", None)
    added = node.inputs[0].producer()
    if target is not torch.ops.aten.scaled_dot_product_attention or added is None:
        return
    softmax = node.outputs[0]
    for user, index in tuple(softmax.uses()):
        if user.op_type == "Where" and index == 2:
            for matmul, place in tuple(user.outputs[0].uses()):
                matmul.replace_input_with(place, softmax)
    if added.op_type != "Add":
        return
    mask = asked.kwargs.get("attn_mask", (*asked.args, None, None)[3])
    if mask is None:
        return  # causal alone: every row sees the first column
    bias, write = added.inputs[1], _Writer(node)
    # A user's own mask of numbers hides by -inf alone: by the least number, eager too gives a mean.
    by_truth = mask.meta["val"].dtype is torch.bool
    hidden = write.number(float(np.finfo(write.numbers).min) if by_truth else -float("inf"))
    last = write.constant(np.array([-1]))
    none = write.op("LessOrEqual", write.op("ReduceMax", bias, last, keepdims=1), hidden)
    total = write.op("ReduceSum", node.inputs[0], last, keepdims=1)
    known = write.op("Not", write.op("IsNaN", total))
    dead = write.op("And", none, known)
    uses = [(u, i) for u, i in softmax.uses() if u.op_type == "MatMul"]
    # Of the weights and not of the result: 0 times a NaN among the values is NaN.
    new = write.op("Where", dead, write.number(0.0), softmax, like=softmax)
    graph.insert_after(node, write.made)
    _replace(graph, softmax, new, uses)


_REPAIRS: Mapping[str, Callable[[Any, Any, int], None]] = {
    "MaxPool": _max_pool,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "ReduceMax": _extreme,
    "ReduceMin": _extreme,
    "Softmax": _attention,
    "TopK": _ordered(1.0),
    "ArgMax": _ordered(1.0),
    "ArgMin": _ordered(-1.0),
}
