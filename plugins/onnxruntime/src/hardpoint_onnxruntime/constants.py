"""Weights as the quantizers look for them: the second operand of a MatMul, plain, with two axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

# A table smaller than this gains nothing.
_LEAST = 2**12


def prepare(model: Any) -> None:
    """Fold transposed weights, and turn ``Gemm`` into ``MatMul`` and ``Add``; in place."""
    for node in list(model.graph):
        if node.op_type == "Gemm" and node.domain == "":
            _gemm(model.graph, node)
    for node in list(model.graph):
        if node.op_type == "Transpose" and held(model.graph, node.inputs[0]) is not None:
            _transposed(model.graph, node)


def held(graph: Any, value: Any) -> Any:
    """The tensor of an initializer; ``None`` for any other value."""
    if value is None or graph.initializers.get(value.name) is not value:
        return None
    return value.const_value


def initializer(graph: Any, name: str, array: Any) -> Any:
    """A new weight; ``name`` is made unique."""
    unique, count = name, 0
    while unique in graph.initializers:
        count += 1
        unique = f"{name}_{count}"
    tensor = ir.tensor(array, name=unique)
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(array.shape)
    value = ir.Value(name=unique, shape=shape, type=kind, const_value=tensor)
    graph.initializers[unique] = value
    return value


def replace(graph: Any, node: Any, new: Sequence[Any], results: Sequence[Any]) -> None:
    """``new`` nodes instead of ``node``; ``results`` take the place of its outputs, by name too."""
    graph.insert_after(node, new)
    for old, made in zip(node.outputs, results, strict=True):
        made.shape, made.type = old.shape, old.type
        for user, index in tuple(old.uses()):
            user.replace_input_with(index, made)
        for i, output in enumerate(graph.outputs):
            if output is old:
                graph.outputs[i] = made
        old.name, made.name = f"{old.name}_replaced", old.name
    graph.remove(node, safe=True)


def drop_unused(graph: Any) -> None:
    """Take out the weights that nothing uses any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in graph.outputs:
            del graph.initializers[name]


def _transposed(graph: Any, node: Any) -> None:
    array = held(graph, node.inputs[0]).numpy()
    perm = node.attributes.get("perm")
    if array.nbytes < _LEAST:
        return
    turned = np.ascontiguousarray(np.transpose(array, None if perm is None else perm.value))
    new = initializer(graph, f"{node.inputs[0].name}_transposed", turned)
    old = node.outputs[0]
    if old in graph.outputs:
        return
    for user, index in tuple(old.uses()):
        user.replace_input_with(index, new)
    graph.remove(node, safe=True)
    drop_unused(graph)


def _gemm(graph: Any, node: Any) -> None:
    """Only where it is a linear layer."""
    number = {name: attribute.value for name, attribute in node.attributes.items()}
    scaled = number.get("alpha", 1.0) != 1.0 or number.get("beta", 1.0) != 1.0
    plain = not scaled and not number.get("transA", 0)
    weight = node.inputs[1]
    tensor = held(graph, weight)
    if not plain or tensor is None or tensor.nbytes < _LEAST:
        return
    if number.get("transB", 0):
        turned = np.ascontiguousarray(tensor.numpy().T)
        weight = initializer(graph, f"{weight.name}_transposed", turned)
    product = ir.node("MatMul", [node.inputs[0], weight], name=f"{node.name}_MatMul")
    product.outputs[0].name = f"{node.outputs[0].name}_product"
    new = [product]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        new.append(ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}_Add"))
        product.outputs[0].type = node.outputs[0].type
    replace(graph, node, new, new[-1].outputs)
    drop_unused(graph)


def round_tables(model: Any) -> None:
    """Embedding tables in int8, each row with a scale of its own: looked up, then made wide."""
    graph = model.graph
    for node in list(graph):
        if node.op_type != "Gather" or node.domain != "":
            continue
        tensor = held(graph, node.inputs[0])
        axis = node.attributes.get("axis")
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < _LEAST:
            continue
        if len(tensor.shape) != 2 or (axis is not None and axis.value != 0):
            continue
        rows = tensor.numpy()
        scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / 127
        name = node.inputs[0].name
        table = initializer(graph, f"{name}_int8", np.rint(rows / scale).astype(np.int8))
        scales = initializer(graph, f"{name}_row_scales", scale.astype(np.float32))
        indices, stem = node.inputs[1], node.name or name
        picked = ir.node("Gather", [table, indices], {"axis": 0}, name=f"{stem}_rows")
        scaled = ir.node("Gather", [scales, indices], {"axis": 0}, name=f"{stem}_scales")
        wide = ir.node("Cast", [picked.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{stem}_wide")
        product = ir.node("Mul", [wide.outputs[0], scaled.outputs[0]], name=f"{stem}_table")
        for made in (picked, scaled, wide):
            made.outputs[0].name = f"{made.name}_value"
        replace(graph, node, [picked, scaled, wide, product], product.outputs)
    drop_unused(graph)
