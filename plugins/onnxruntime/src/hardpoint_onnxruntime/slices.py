"""Inputs of which a model takes whole slices only are handed over slice by slice, uncopied.

A decoder's caches are often one tensor for all layers. ONNX has no views: each layer's would be
copied out of it at each call, before a word is computed.
"""

from __future__ import annotations

import math
from typing import Any

import onnx_ir as ir
from onnx_ir import convenience

# A smaller slice is copied sooner than it is handed over.
_LEAST = 2**14  # bytes
Slices = dict[int, str]


def by_slices(model: Any) -> dict[str, Slices]:
    """Change ``model`` in place: an input of its own for each slice along the first dimension.

    :returns: the names of inputs that are gone -> place of each slice -> the name of its input.
    """
    graph, found = model.graph, {}
    taken = {value.name for node in graph for value in node.outputs}
    taken |= {*graph.initializers, *(value.name for value in graph.inputs)}
    for given in list(graph.inputs):
        picks = _picks(graph, given)
        if not picks:
            continue
        slices: dict[int, Any] = {}
        for place in sorted(set(picks.values())):
            name = f"{given.name}_slice_{place}"
            while name in taken:
                name += "_"
            taken.add(name)
            shape = ir.Shape(list(given.shape)[1:])
            slices[place] = ir.Value(name=name, shape=shape, type=given.type)
        for node, place in picks.items():
            for user, index in tuple(node.outputs[0].uses()):
                user.replace_input_with(index, slices[place])
            graph.remove(node, safe=True)
        at = graph.inputs.index(given)
        graph.inputs[at : at + 1] = list(slices.values())
        found[str(given.name)] = {place: str(value.name) for place, value in slices.items()}
    return found


def _picks(graph: Any, given: Any) -> dict[Any, int]:
    """Node -> which slice it takes; empty: something takes another part, or slices are small."""
    shape, found = given.shape, {}
    if shape is None or not shape or not isinstance(shape[0], int) or given in graph.outputs:
        return {}
    sizes = [size for size in list(shape)[1:] if isinstance(size, int)]
    small = math.prod(sizes) * given.dtype.itemsize < _LEAST
    if small and len(sizes) == len(shape) - 1:
        return {}
    for node, index in given.uses():
        if node.op_type != "Gather" or node.domain or index != 0 or node.graph is not graph:
            return {}
        axis, place = node.attributes.get("axis"), convenience.get_const_tensor(node.inputs[1])
        if (axis is not None and axis.value != 0) or place is None or len(place.shape) != 0:
            return {}
        if node.outputs[0] in graph.outputs:
            return {}
        number = int(place.numpy())
        found[node] = number + shape[0] if number < 0 else number
        if not 0 <= found[node] < shape[0]:
            return {}
    return found
