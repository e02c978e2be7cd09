"""What int8 leaves in float32: what it makes no faster, or far from right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import onnx
import torch

_MATRICES = frozenset({"MatMul", "Gemm"})
_PRODUCTS = _MATRICES | {"Conv", "ConvTranspose"}
# ONNX Runtime has no kernel for it in int8, and its quantizer fails where several share a scale.
_NORM = "InstanceNormalization"
# Worth it between two products; around norms they only add steps to int8 and back.
_ELEMENTWISE = frozenset({"Add", "Mul", "Sigmoid", "LeakyRelu"})
# Its kernel for int8 takes ten times as long (1.15 ms against 0.12 for 1024 x 1024).
_SOFTMAX = "Softmax"
_FEW_ROWS = 4
_FITS_A_CACHE = 1 << 18  # numbers: 1 MiB in fp32


def kept_in_float(model: onnx.ModelProto, examples: Sequence[torch.Tensor]) -> list[str]:
    """Names of nodes that are not to be quantized.

    Norms of groups and, in networks that have them, what works element by element; softmax, and
    products of two activations (attention), which would have it in int8; products of a few rows and
    few weights, such as what shifts a U-Net by its time: the ranges of so few rows are no good for
    others, the error is the same all over the picture, and there is no time to be saved.

    :param model: this reading of it, of which inputs get the examples' shapes.
    """
    for number, node in enumerate(model.graph.node):  # "" would stand for all that have no name
        node.name = node.name or f"unnamed_{number}"
    kinds = {_SOFTMAX}
    if any(node.op_type == _NORM for node in model.graph.node):
        kinds |= {_NORM, *_ELEMENTWISE}
    weights = _weights(model.graph)
    small = _small(model, examples, weights)
    if small == weights.keys():
        small = set()  # they are all that there is: int8 was asked for them
    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds
        or node.name in small
        or (node.op_type == "MatMul" and node.name not in weights)
    ]


def _weights(graph: Any) -> dict[str, int]:
    """Each product that has an initializer among its operands -> how many numbers that holds."""
    held = {given.name: prod(given.dims) for given in graph.initializer}
    return {
        node.name: next(held[name] for name in node.input[:2] if name in held)
        for node in graph.node
        if node.op_type in _PRODUCTS and not held.keys().isdisjoint(node.input[:2])
    }


def _small(model: Any, examples: Sequence[torch.Tensor], weights: Mapping[str, int]) -> set[str]:
    """Products of a few rows, as the examples have them, with few weights."""
    del model.graph.value_info[:]
    for given, example in zip(model.graph.input, examples, strict=True):
        shape = given.type.tensor_type.shape
        del shape.dim[:]
        for size in example.shape:
            shape.dim.add().dim_value = size
    known = onnx.shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*known.value_info, *known.input)
        if value.type.tensor_type.HasField("shape")
    }

    def small(node: Any) -> bool:
        shape = shapes.get(node.input[0])
        if shape is None or weights.get(node.name, _FITS_A_CACHE + 1) > _FITS_A_CACHE:
            return False
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        rows = shape[1:] if turned else shape[:-1]
        return bool(0 < prod(rows) <= _FEW_ROWS)

    return {node.name for node in model.graph.node if node.op_type in _MATRICES and small(node)}
