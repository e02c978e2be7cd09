"""From the layout of convolutions to PyTorch's, where OpenVINO would move one number at a time.

OpenVINO's CPU plugin keeps what convolutions give with the channels last. Where planar memory is
wanted of it (a result, a group norm), and it is float32 with 16 to 64 channels, its ``Reorder`` is
a plain loop: 0.9 ms for a MiB on two cores, a sixth of a whole U-Net block in int8. Written as
transpositions, the first of which is no work then, a vectorized kernel does the same in a tenth of
that, bit for bit.

Only the compiled model tells which places these are, and where the first transposition is work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from hardpoint_openvino.runtime import op, ov

# What the plugin calls its loop; the vectorized ones have other names.
_LOOP = "reorder_f32"
_CHANNELS = range(16, 65)
_RANK = 4
_LEAST = 1 << 16  # numbers: a quarter of a millisecond
_MARK = "hardpoint:channels-last:"


class _Place(NamedTuple):
    """A loop in the compiled model.

    :param shape: of what it moves. :param before: names of the operators that gave it, fused ones
        too. :param after: names of those that take it. :param ends: whether it is a result.
    """

    shape: tuple[int, ...]
    before: frozenset[str]
    after: frozenset[str]
    ends: bool


def compile_planar(
    model: ov.Model, compiling: Callable[[ov.Model], ov.CompiledModel]
) -> tuple[ov.Model, ov.CompiledModel]:
    """``model`` with transpositions where they replace loops, compiled.

    :param compiling: compiles a model; asked two or three times where there are loops.
    """
    compiled = compiling(model)
    places = list(_loops(compiled))
    while places and (made := _transposed(model, places)):
        again = compiling(made)
        if not (worse := _kept(again)):
            return made, again
        places = [place for at, place in enumerate(places) if at not in worse]
    return model, compiled


def _loops(compiled: ov.CompiledModel) -> Iterator[_Place]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        if _said(node, "primitiveType") != _LOOP or node.get_output_partial_shape(0).is_dynamic:
            continue
        shape = tuple(node.get_output_partial_shape(0).to_shape())
        if len(shape) != _RANK or shape[1] not in _CHANNELS or prod(shape) < _LEAST:
            continue
        takers = [port.get_node() for port in node.output(0).get_target_inputs()]
        yield _Place(
            shape,
            _names(node.input_value(0).get_node()),
            frozenset().union(*map(_names, takers)),
            any(_said(taker, "layerType") == "Output" for taker in takers),
        )


def _kept(compiled: ov.CompiledModel) -> set[int]:
    """The places whose first transposition is work: the plugin did not take it for a view."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    names = {name for node in nodes for name in _names(node)}
    return {int(name.removeprefix(_MARK)) for name in names if name.startswith(_MARK)}


def _transposed(model: ov.Model, places: Sequence[_Place]) -> ov.Model | None:
    """The model with transpositions at these places; ``None``: it has no such places."""
    made = model.clone()
    ports = [port for node in made.get_ordered_ops() for port in node.outputs()]
    changed = [_transpose(place, f"{_MARK}{at}", ports) for at, place in enumerate(places)]
    return made if any(changed) else None


def _transpose(place: _Place, mark: str, ports: Sequence[ov.Output]) -> bool:
    shape = ov.PartialShape(list(place.shape))
    of = [
        port
        for port in ports
        if port.get_node().get_friendly_name() in place.before and port.get_partial_shape() == shape
    ]
    # Of fused operators, the last.
    takers = [taker for taker in of[-1].get_target_inputs() if _takes(taker, place)] if of else []
    if not takers:
        return False
    batch, channels, height, width = place.shape
    last = op.transpose(of[-1], np.array([0, 2, 3, 1]))
    last.set_friendly_name(mark)
    # In three dimensions: two transpositions one after the other would be taken for none.
    flat = op.reshape(last, np.array([batch, height * width, channels]), special_zero=False)
    first = op.transpose(flat, np.array([0, 2, 1]))
    planar = op.reshape(first, np.array(place.shape), special_zero=False)
    for taker in takers:
        taker.replace_source_output(planar.output(0))
    return True


def _takes(taker: ov.Input, place: _Place) -> bool:
    """Whether it is one of those for which the loop runs."""
    node = taker.get_node()
    kind = node.get_type_name()
    if kind == "Result":
        return place.ends
    # The plugin takes a group norm apart, into operators of other names.
    return kind == "GroupNormalization" or node.get_friendly_name() in place.after


def _names(node: ov.Node) -> frozenset[str]:
    return frozenset(filter(None, _said(node, "originalLayersNames").split(",")))


def _said(node: ov.Node, key: str) -> str:
    facts = node.get_rt_info()
    return str(facts[key].value) if key in facts else ""
