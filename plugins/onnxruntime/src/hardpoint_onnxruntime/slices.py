"""Inputs of which a model takes parts only are handed over part by part, uncopied.

A decoder's caches are often one tensor for all layers. ONNX has no views: each layer's would be
copied out of it at each call, before a word is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import onnx_ir as ir
import torch
from onnx_ir import convenience

# A smaller part is copied sooner than it is handed over.
_LEAST = 2**14  # bytes


class Part(NamedTuple):
    """Part of an input along its first dimension.

    :param start: where it begins. :param length: how many it has; 0: one, without that dimension.
    :param name: of ONNX Runtime's input that takes it.
    """

    start: int
    length: int
    name: str


def by_slices(model: Any, examples: Sequence[torch.Tensor]) -> dict[str, list[Part]]:
    """Change ``model`` in place: an input of its own for each part along the first dimension.

    :param examples: one for each input, by which small parts are known; or none.
    :returns: the names of inputs that are gone -> what took their place.
    """
    graph = model.graph
    taken = {value.name for node in graph for value in node.outputs}
    taken |= {*graph.initializers, *(value.name for value in graph.inputs)}
    like = dict(zip([value.name for value in graph.inputs], examples, strict=False))
    found: dict[str, list[Part]] = {}
    for given in list(graph.inputs):
        parts = _parts(graph, given)
        if not parts or _row(given, like) * min(max(p[1], 1) for p in parts.values()) < _LEAST:
            continue
        inputs: dict[tuple[int, int], Any] = {}
        for start, count in sorted(set(parts.values())):
            name = f"{given.name}_from_{start}" + (f"_{count}" if count else "")
            while name in taken:
                name += "_"
            taken.add(name)
            shape = ir.Shape([*([count] if count else []), *list(given.shape)[1:]])
            inputs[start, count] = ir.Value(name=name, shape=shape, type=given.type)
        for value, part in parts.items():
            for user, index in tuple(value.uses()):
                user.replace_input_with(index, inputs[part])
        graph.remove({value.producer() for value in parts}, safe=True)
        at = graph.inputs.index(given)
        graph.inputs[at : at + 1] = list(inputs.values())
        found[str(given.name)] = [Part(*part, str(v.name)) for part, v in inputs.items()]
    return found


def _row(given: Any, like: Mapping[str, torch.Tensor]) -> float:
    """Bytes of one step along the first dimension: the example's, else by its sizes; infinity where
    one of those is not known.
    """
    if given.name in like:
        return like[given.name][0].nbytes
    sizes = list(given.shape)[1:]
    if not all(isinstance(size, int) for size in sizes):
        return math.inf
    return float(math.prod(sizes) * given.dtype.itemsize)


def _parts(graph: Any, given: Any) -> dict[Any, tuple[int, int]]:
    """Value -> (start, count) of the part that it is; empty: something takes another part."""
    shape = given.shape
    found: dict[Any, tuple[int, int]] = {}
    if not shape or not isinstance(shape[0], int) or given in graph.outputs:
        return {}
    for node, index in given.uses():
        if node.domain or index != 0 or node.graph is not graph:
            return {}
        parts = list(_taken(node, shape[0]))
        if not parts or any(value in graph.outputs for value in node.outputs):
            return {}
        found.update(parts)
    return found


def _taken(node: Any, size: int) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Value -> part, for each part along the first of ``size`` that ``node`` takes."""
    axis = node.attributes.get("axis")
    if axis is not None and axis.value != 0:
        return
    if node.op_type == "Split":
        counts = [value.shape[0] if value.shape else None for value in node.outputs]
        known = [count for count in counts if isinstance(count, int) and count > 0]
        if len(known) == len(counts) and sum(known) == size:
            yield from zip(node.outputs, zip(_starts(known), known, strict=True), strict=True)
    elif node.op_type == "Gather":
        place = convenience.get_const_tensor(node.inputs[1])
        if place is None or len(place.shape) != 0:
            return
        start = int(place.numpy())
        start += size if start < 0 else 0
        if 0 <= start < size:
            yield node.outputs[0], (start, 0)
    elif node.op_type == "Slice":
        numbers = [_number(value) for value in node.inputs[1:]]
        given = [number for number in numbers if number is not None]
        if len(given) < max(2, len(numbers)):
            return
        start, end, along, step = *given, *(0, 1)[len(given) - 2 :]
        start, end, _ = slice(start, end).indices(size)
        if (along, step) == (0, 1) and start < end:
            yield node.outputs[0], (start, end - start)


def _number(value: Any) -> int | None:
    """The only number of a constant; ``None``: it is no such thing."""
    found = None if value is None else convenience.get_const_tensor(value)
    return int(found.numpy()[0]) if found is not None and found.shape == (1,) else None


def _starts(counts: Sequence[int]) -> Iterator[int]:
    return accumulate(counts[:-1], initial=0)
