"""Weights of linear layers held in eight bits; the products are computed in half precision.

A row of the matrix (one output) has one float32 scale. ``linear(x, W)`` becomes ``linear(x, q) *
scale`` with ``q`` cast where it is used: Inductor makes the cast part of the product's own kernel,
and in mode eager it is a copy that lives as long as that call. In float16 such sums of whole
numbers would overflow, so that there the matrix itself is scaled first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from hardpoint_cpu import layers
from hardpoint_cpu.origin import compile_error
from hardpoint_cpu.segment import Segment

_aten = torch.ops.aten
_LINEAR = _aten.linear.default
_DTYPES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
_LARGEST = {"int8": 127.0, "fp8": torch.finfo(torch.float8_e4m3fn).max}


def hold_in_eight_bits(
    segment: Segment, kind: str, originals: Mapping[str, torch.Tensor]
) -> Segment:
    """``segment`` with the matrices of its linear layers as ``kind``.

    :param kind: ``int8`` or ``fp8``.
    :param originals: the program's own weights: one that was cast to half precision on its way
        (``name@bf16``) is rounded from these, once.
    :raises CompileError: it has no linear layer whose weights are its own.
    """
    made = dataclasses.replace(segment, graph=Graph(), weights=dict(segment.weights))
    copies: dict[Node, Node] = {}
    packed: dict[str, tuple[Node, Node]] = {}
    for node in segment.graph.nodes:
        if _is_layer(node, segment):
            copies[node] = _layer(node, segment, made, copies, packed, kind, originals)
            copies[node].meta = dict(node.meta)
        else:
            copies[node] = made.graph.node_copy(node, copies.__getitem__)
            copies[node].meta = dict(node.meta)
    if not packed:
        raise compile_error(
            "precision 'int8w' changes nothing in this segment",
            cause="it has no linear layer whose weights are constants of it",
            remedy="ask for precision 'fp32', 'bf16' or 'fp16'",
        )
    made.executed = dataclasses.replace(
        segment.executed, precision="int8w", quantized={kind: len(packed)}
    )
    made.graph.eliminate_dead_code(layers.must_stay)
    made.drop_unused_weights()
    return made


def _is_layer(node: Node, segment: Segment) -> bool:
    if node.op != "call_function" or node.target is not _LINEAR:
        return False
    weight = node.args[1]
    if not isinstance(weight, Node) or weight.op != "get_attr":
        return False
    held = segment.weights.get(str(weight.target))
    return held is not None and held[1].is_floating_point() and held[1].dim() == 2


def _layer(
    node: Node,
    segment: Segment,
    made: Segment,
    copies: dict[Node, Node],
    packed: dict[str, tuple[Node, Node]],
    kind: str,
    originals: Mapping[str, torch.Tensor],
) -> Node:
    source: Any = node.args[1]
    attribute = str(source.target)
    dtype = segment.weights[attribute][1].dtype
    if attribute not in packed:
        packed[attribute] = _pack(attribute, segment, made, kind, originals)
    held, scale = packed[attribute]
    call = made.graph.call_function
    inputs, bias = copies[node.args[0]], node.args[2] if len(node.args) > 2 else None  # type: ignore[index]
    if dtype is torch.float16:
        column = call(_aten.unsqueeze.default, (scale, 1))
        wide = call(_aten._to_copy.default, (held,), {"dtype": torch.float32})
        scaled = call(_aten.mul.Tensor, (wide, column))
        matrix = call(_aten._to_copy.default, (scaled,), {"dtype": dtype})
        return call(_LINEAR, (inputs, matrix, None if bias is None else copies[bias]))  # type: ignore[index]
    matrix = call(_aten._to_copy.default, (held,), {"dtype": dtype})
    result = call(_aten.mul.Tensor, (call(_LINEAR, (inputs, matrix)), scale))
    if bias is not None:
        result = call(_aten.add.Tensor, (result, copies[bias]))  # type: ignore[index]
    return (
        result
        if dtype is torch.float32
        else call(_aten._to_copy.default, (result,), {"dtype": dtype})
    )


def _pack(
    attribute: str,
    segment: Segment,
    made: Segment,
    kind: str,
    originals: Mapping[str, torch.Tensor],
) -> tuple[Node, Node]:
    name, tensor = segment.weights[attribute]
    wide = originals.get(name.rpartition("@")[0], tensor).detach().to(torch.float32)
    if not torch.isfinite(wide).all():
        raise compile_error(
            f"weight {name!r} holds infinities or NaN, which eight bits do not keep",
            remedy="ask for precision 'fp32', 'bf16' or 'fp16'",
        )
    scale = wide.abs().amax(1) / _LARGEST[kind]
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    held = wide / scale[:, None]
    held = held.round() if kind == "int8" else held
    names = (f"{attribute}_held", f"{attribute}_scale")
    made.weights[names[0]] = (f"{name}@{kind}", held.to(_DTYPES[kind]))
    made.weights[names[1]] = (f"{name}@{kind}-scale", scale)
    return made.graph.get_attr(names[0]), made.graph.get_attr(names[1])
