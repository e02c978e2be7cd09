"""Weights as the quantizers look for them: the second operand of a MatMul, plain, with two axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

# A table smaller than this gains nothing.
LEAST = 2**12


def prepare(model: Any) -> dict[str, str]:
    """Fold transposed weights, and turn ``Gemm`` into ``MatMul`` and ``Add``; in place.

    :returns: the names of matrices that were transposed -> what they are named so.
    """
    turned: dict[str, Any] = {}
    for node in list(model.graph):
        if node.op_type == "Gemm" and node.domain == "":
            _gemm(model.graph, node, turned)
    for node in list(model.graph):
        if node.op_type == "Transpose" and held(model.graph, node.inputs[0]) is not None:
            _transposed(model.graph, node, turned)
    return {name: str(new.name) for name, new in turned.items()}


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


def _transposed(graph: Any, node: Any, turned: dict[str, Any]) -> None:
    weight, old = node.inputs[0], node.outputs[0]
    array, perm = held(graph, weight).numpy(), node.attributes.get("perm")
    if array.nbytes < LEAST or old in graph.outputs:
        return
    if array.ndim == 2 and (perm is None or tuple(perm.value) == (1, 0)):
        new = _matrix(graph, weight, turned)
    else:
        other = np.ascontiguousarray(np.transpose(array, None if perm is None else perm.value))
        new = initializer(graph, f"{weight.name}_transposed", other)
    for user, index in tuple(old.uses()):
        user.replace_input_with(index, new)
    graph.remove(node, safe=True)
    drop_unused(graph)


def _matrix(graph: Any, weight: Any, turned: dict[str, Any]) -> Any:
    """``weight`` transposed: one for all that multiply with it.

    :param turned: those that were made already, by their weights' names.
    """
    known = turned.get(weight.name)
    if known is None or graph.initializers.get(known.name) is not known:
        array = np.ascontiguousarray(held(graph, weight).numpy().T)
        known = turned[weight.name] = initializer(graph, f"{weight.name}_transposed", array)
    return known


def _gemm(graph: Any, node: Any, turned: dict[str, Any]) -> None:
    """Only where it is a linear layer."""
    number = {name: attribute.value for name, attribute in node.attributes.items()}
    scaled = number.get("alpha", 1.0) != 1.0 or number.get("beta", 1.0) != 1.0
    plain = not scaled and not number.get("transA", 0)
    weight = node.inputs[1]
    tensor = held(graph, weight)
    if not plain or tensor is None or tensor.nbytes < LEAST:
        return
    if number.get("transB", 0):
        weight = _matrix(graph, weight, turned)
    product = ir.node("MatMul", [node.inputs[0], weight], name=f"{node.name}_MatMul")
    product.outputs[0].name = f"{node.outputs[0].name}_product"
    new = [product]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        new.append(ir.node("Add", [product.outputs[0], node.inputs[2]], name=f"{node.name}_Add"))
        product.outputs[0].type = node.outputs[0].type
    replace(graph, node, new, new[-1].outputs)
    drop_unused(graph)
