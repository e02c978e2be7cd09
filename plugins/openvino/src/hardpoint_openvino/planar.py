"""From the layout of convolutions to PyTorch's, where OpenVINO would move one number at a time.

OpenVINO's CPU plugin keeps what convolutions give with the channels last. Where planar memory is
wanted of it (a result, a group norm), and it is float32 with 16 to 64 channels, its ``Reorder`` is
a plain loop: 0.9 ms for a MiB on two cores, a sixth of a whole U-Net block in int8. Written as
transpositions, the first of which is no work then, a vectorized kernel does the same in a tenth of
that, bit for bit.

Only the compiled model tells which places these are, and where the first transposition is work.
It is done for one static size in four dimensions, and where nothing else takes the value: what
shares a view's memory might be written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from hardpoint import CompileError
from hardpoint_openvino.facts import said
from hardpoint_openvino.runtime import op, ov

# What the plugin calls its loop (and a view that it took a transposition for): the vectorized ones
# have other names. Its layouts are named by the order of the dimensions in memory.
_LOOP = "reorder_f32"
_CHANNELS_LAST = "acdb"
_CHANNELS = range(16, 65)
_RANK = 4
_LEAST = 1 << 16  # numbers: a quarter of a millisecond
_MARK = "hardpoint:channels-last:"
_TRIES = 2


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

    The model as it is, compiled, where that cannot be done: it is right, too.

    :param compiling: compiles a model; asked once where there are no loops, thrice at most.
    """
    compiled = compiling(model)
    try:
        return _tried(model, compiled, compiling) or (model, compiled)
    except (RuntimeError, ValueError, CompileError):
        return model, compiled


def _tried(
    model: ov.Model, compiled: ov.CompiledModel, compiling: Callable[[ov.Model], ov.CompiledModel]
) -> tuple[ov.Model, ov.CompiledModel] | None:
    places = list(_loops(compiled))
    for _ in range(_TRIES):
        made = _transposed(model, places) if places else None
        if made is None:
            return None
        again = compiling(made)
        worse = _kept(again)
        if not worse:
            return made, again
        del again  # two compiled models at a time are enough
        places = [place for at, place in enumerate(places) if at not in worse]
    return None


def _loops(compiled: ov.CompiledModel) -> Iterator[_Place]:
    for node in compiled.get_runtime_model().get_ordered_ops():
        if said(node, "primitiveType") != _LOOP or node.get_output_partial_shape(0).is_dynamic:
            continue
        shape = tuple(node.get_output_partial_shape(0).to_shape())
        if len(shape) != _RANK or shape[1] not in _CHANNELS or prod(shape) < _LEAST:
            continue
        giver = node.input_value(0).get_node()
        if said(giver, "outputLayouts") != _CHANNELS_LAST:
            continue
        takers = [port.get_node() for port in node.output(0).get_target_inputs()]
        yield _Place(
            shape,
            _names(giver),
            frozenset().union(*map(_names, takers)),
            any(said(taker, "layerType") == "Output" for taker in takers),
        )


def _kept(compiled: ov.CompiledModel) -> set[int]:
    """The places whose first transposition is work: the plugin did not take it for a view."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    names = {name for node in nodes for name in _names(node)}
    return {int(name.removeprefix(_MARK)) for name in names if name.startswith(_MARK)}


def _transposed(model: ov.Model, places: Sequence[_Place]) -> ov.Model | None:
    """The model with transpositions at these places; ``None``: it has no such places."""
    made = model.clone()
    ports = [node.output(0) for node in made.get_ordered_ops() if node.get_output_size() == 1]
    changed = [_transpose(place, f"{_MARK}{at}", ports) for at, place in enumerate(places)]
    return made if any(changed) else None


def _transpose(place: _Place, mark: str, ports: Sequence[ov.Output]) -> bool:
    shape = ov.PartialShape(list(place.shape))
    of = [
        port
        for port in ports
        if port.get_node().get_friendly_name() in place.before and port.get_partial_shape() == shape
    ]
    takers = of[-1].get_target_inputs() if of else ()  # of fused operators, the last
    if not takers or not all(_takes(taker, place) for taker in takers):
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
    return frozenset(filter(None, said(node, "originalLayersNames").split(",")))
