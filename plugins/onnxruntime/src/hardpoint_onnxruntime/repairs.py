"""Where ONNX Runtime's kernels lose a NaN that PyTorch keeps: the graph is made to keep it.

Its MaxPool and LSTM give plausible numbers for windows and sequences that hold a NaN; its TopK,
ArgMax and ArgMin do not count a NaN as the greatest (or least), as PyTorch does; and the exporter's
attention gives 0 for it. What is added costs little: the average of a window is NaN where the
window holds one, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

_FLOATS = {
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
        self._stem = node.name or node.outputs[0].name
        self.dtype = node.inputs[0].dtype
        self.numbers = _FLOATS[self.dtype]

    def op(self, kind: str, *inputs: Any, like: Any = None, **attributes: Any) -> Any:
        """One node; its result has the type and shape of ``like``, where that is given."""
        node = ir.node(kind, inputs, attributes or None, name=f"{self._stem}_nan_{len(self.made)}")
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
    """The average of a window is NaN where the window holds one; without the infinities, only so."""
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
            write._stem += f"_{i}"
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
        after._stem += "_values"
        at = axis.value if axis is not None else -1
        new = after.op("GatherElements", value, indices, like=values, axis=at)
        graph.insert_after(node, after.made)
        _replace(graph, values, new, uses)

    return change


def _masked_softmax(graph: Any, node: Any, opset: int) -> None:
    """The exporter gives 0 for rows that are masked whole by looking for NaN: look for the mask."""
    softmax = node.outputs[0]
    users = [user for user, _ in softmax.uses()]
    tests = [user for user in users if user.op_type == "IsNaN"]
    wheres = [u for test in tests for u, index in test.outputs[0].uses() if index == 0]
    wheres = [w for w in wheres if w.op_type == "Where" and w.inputs[2] is softmax]
    if not wheres:
        return
    axis = node.attributes.get("axis")
    write = _Writer(node)
    at = write.constant(np.array([axis.value if axis is not None else -1]))
    greatest = write.op("ReduceMax", node.inputs[0], at, keepdims=1)
    masked = write.op("Equal", greatest, write.number(-float("inf")))
    graph.insert_after(node, write.made)
    for where in wheres:
        where.replace_input_with(0, masked)
    for test in tests:
        if not test.outputs[0].uses() and test.outputs[0] not in graph.outputs:
            graph.remove(test, safe=True)


_REPAIRS: Mapping[str, Callable[[Any, Any, int], None]] = {
    "MaxPool": _max_pool,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Softmax": _masked_softmax,
    "TopK": _ordered(1.0),
    "ArgMax": _ordered(1.0),
    "ArgMin": _ordered(-1.0),
}
