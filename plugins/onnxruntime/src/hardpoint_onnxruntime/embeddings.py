"""Embedding tables of which eight bits a number are held, and the rows looked up made wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from hardpoint_onnxruntime.constants import LEAST, drop_unused, held, initializer, replace

_MIDDLE = 128  # what stands for zero in the bytes of a symmetric MatMulNBits


def share_tables(model: Any, turned: Mapping[str, str]) -> None:
    """Look up the rows of tied tables in the blocks of the ``MatMulNBits`` that is their head.

    :param model: quantized to eight bits, symmetric; changed in place.
    :param turned: the names of tables -> what the head's weight, the table transposed, was named.
    """
    graph = model.graph
    heads = {node.inputs[1].name: node for node in graph if node.op_type == "MatMulNBits"}
    for node, table in _tables(graph):
        head = heads.get(f"{turned[table.name]}_Q8") if table.name in turned else None
        if head is None or not _row_by_row(head, table.shape):
            continue
        width, indices = table.shape[1], node.inputs[1]
        stem = node.name or table.name
        last = initializer(graph, f"{stem}_last", np.array([-1], np.int64))
        middle = initializer(graph, f"{stem}_middle", np.array(_MIDDLE, np.float32))
        row = initializer(graph, f"{stem}_width", np.array([width], np.int64))
        made = [
            rows := ir.node("Gather", [head.inputs[1], indices], {"axis": 0}, name=f"{stem}_rows"),
            wide := _wide(rows, stem),
            even := ir.node("Sub", [wide.outputs[0], middle], name=f"{stem}_even"),
            scales := ir.node(
                "Gather", [head.inputs[2], indices], {"axis": 0}, name=f"{stem}_scales"
            ),
            beside := ir.node("Unsqueeze", [scales.outputs[0], last], name=f"{stem}_beside"),
            scaled := ir.node("Mul", [even.outputs[0], beside.outputs[0]], name=f"{stem}_scaled"),
            shape := ir.node("Shape", [indices], name=f"{stem}_shape"),
            sizes := ir.node("Concat", [shape.outputs[0], row], {"axis": 0}, name=f"{stem}_sizes"),
            ir.node("Reshape", [scaled.outputs[0], sizes.outputs[0]], name=f"{stem}_table"),
        ]
        _put(graph, node, made)
    drop_unused(graph)


def _row_by_row(head: Any, shape: Any) -> bool:
    """Whether whole blocks make up a row of the table."""
    rows, width, block = (head.attributes[name].value for name in ("N", "K", "block_size"))
    return (rows, width) == tuple(shape) and width % block == 0


def round_tables(model: Any) -> None:
    """Tables in int8, each row with a scale of its own; in place."""
    graph = model.graph
    rounded: dict[str, tuple[Any, Any]] = {}
    for node, table in _tables(graph):
        if table.name not in rounded:
            rows = table.const_value.numpy()
            scale = np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-30) / 127
            integers = np.rint(rows / scale).astype(np.int8)
            rounded[table.name] = (
                initializer(graph, f"{table.name}_int8", integers),
                initializer(graph, f"{table.name}_row_scales", scale.astype(np.float32)),
            )
        integer_rows, scales = rounded[table.name]
        indices, stem = node.inputs[1], node.name or table.name
        picked = ir.node("Gather", [integer_rows, indices], {"axis": 0}, name=f"{stem}_rows")
        scaled = ir.node("Gather", [scales, indices], {"axis": 0}, name=f"{stem}_scales")
        wide = _wide(picked, stem)
        product = ir.node("Mul", [wide.outputs[0], scaled.outputs[0]], name=f"{stem}_table")
        _put(graph, node, [picked, scaled, wide, product])
    drop_unused(graph)


def _tables(graph: Any) -> Iterator[tuple[Any, Any]]:
    """The lookups of rows in float32 tables, with the table."""
    for node in list(graph):
        if node.op_type != "Gather" or node.domain != "":
            continue
        table, axis = node.inputs[0], node.attributes.get("axis")
        tensor = held(graph, table)
        if tensor is None or tensor.dtype != ir.DataType.FLOAT or tensor.nbytes < LEAST:
            continue
        if len(tensor.shape) == 2 and (axis is None or axis.value == 0):
            yield node, table


def _wide(rows: Any, stem: str) -> Any:
    return ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{stem}_wide")


def _put(graph: Any, node: Any, made: list[Any]) -> None:
    """``made`` in the place of ``node``, the last for its result."""
    for one in made[:-1]:
        one.outputs[0].name = f"{one.name}_value"
    replace(graph, node, made, made[-1].outputs)
