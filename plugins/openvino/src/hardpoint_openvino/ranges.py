"""Which values an integer tensor of a program can hold.

OpenVINO's devices hold 64-bit integers in 32 bits. Arithmetic on them is claimed only where it is
certain that every number fits: positions, sizes, indices, masks.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

LEAST, GREATEST = -(2**31), 2**31 - 1
# A size without a limit: a tensor of so many int64 would take 8 GiB along one dimension.
_UNLIMITED = 2**30
aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high``, both included."""

    low: int
    high: int

    @property
    def fits(self) -> bool:
        """Whether 32 bits hold every number of it."""
        return self.low >= LEAST and self.high <= GREATEST

    def __or__(self, other: Range) -> Range:
        """What holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


class Ranges:
    """The ranges of the integer (and bool) values of a program, as far as they are known."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._known: dict[Node, Range | None] = {}
        held = _held(program)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                tensor = held.get(node.name)
                self._known[node] = _of_tensor(tensor) if tensor is not None else _of_dtype(node)
            elif node.op == "call_function":
                self._known[node] = self._of_call(node)

    def of(self, value: object) -> Range | None:
        """The range of a node or a number; ``None`` where unknown."""
        if isinstance(value, Node):
            return self._known.get(value)
        if isinstance(value, (bool, int)):
            return Range(int(value), int(value))
        return None

    def _of_call(self, node: Node) -> Range | None:
        value = node.meta.get("val")
        if isinstance(value, (int, torch.SymInt)):
            return _of_size(value, self._program)
        if node.target in _WITH_INDICES and _is_float(node.args[0]):
            return _position(self, node)  # its only integers
        tensor = value[0] if isinstance(value, (tuple, list)) and value else value
        if isinstance(tensor, torch.Tensor) and tensor.dtype is torch.bool:
            return Range(0, 1)
        rule = _RULES.get(node.target)
        if rule is not None:
            return rule(self, node)
        if node.target in _SAME:
            return self._union(node.args[:1])
        return None

    def _union(self, values: Any) -> Range | None:
        found: Range | None = None
        for value in values:
            one = self.of(value)
            if one is None:
                return None
            found = one if found is None else found | one
        return found

    def size(self, node: Node, dim: int) -> Range:
        """How long ``node`` is along ``dim``."""
        return _of_size(node.meta["val"].shape[dim], self._program)

    def length(self, node: Node, dims: object = None) -> Range | None:
        """How many elements ``node`` has, along ``dims`` where given."""
        shape = node.meta["val"].shape
        picked = range(len(shape)) if dims is None or dims == [] else _listed(dims)
        count = 1
        for dim in picked:
            size = _of_size(shape[dim], self._program)
            count *= max(1, size.high)
        return Range(0, count)


def _listed(dims: object) -> list[int]:
    return [dims] if isinstance(dims, int) else list(dims)  # type: ignore[call-overload]


def _held(program: ExportedProgram) -> Mapping[str, torch.Tensor]:
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT and spec.target is not None:
            tensor = program.state_dict.get(spec.target, program.constants.get(spec.target))
            mutated = spec.target in program.graph_signature.buffers_to_mutate.values()
            if isinstance(tensor, torch.Tensor) and not mutated:
                found[spec.arg.name] = tensor
    return found


def _of_tensor(tensor: torch.Tensor) -> Range | None:
    if tensor.is_floating_point() or tensor.is_complex() or tensor.is_meta:
        return None
    if not tensor.numel():
        return Range(0, 0)
    low, high = (tensor.to(torch.int64)).aminmax()
    return Range(int(low), int(high))


def _of_dtype(node: Node) -> Range | None:
    """Of an input: all that a narrow dtype can hold; of int64 nobody knows."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return None
    if value.dtype is torch.bool:
        return Range(0, 1)
    if value.dtype in (torch.int8, torch.uint8, torch.int16):
        limits = torch.iinfo(value.dtype)
        return Range(limits.min, limits.max)
    return None


def _of_size(size: int | torch.SymInt, program: ExportedProgram) -> Range:
    if isinstance(size, int):
        return Range(size, size)
    expression = size.node.expr
    limits = program.range_constraints.get(expression) or size.node.shape_env.bound_sympy(
        expression
    )
    low = int(limits.lower) if limits.lower.is_Integer else -_UNLIMITED
    high = int(limits.upper) if limits.upper.is_Integer else _UNLIMITED
    return Range(min(low, _UNLIMITED), min(high, _UNLIMITED))


def _corners(function: Callable[[int, int], int]) -> Callable[[Ranges, Node], Range | None]:
    """A function of two numbers that is greatest and least where they are."""

    def rule(ranges: Ranges, node: Node) -> Range | None:
        a, b = (ranges.of(value) for value in node.args[:2])
        if a is None or b is None or len(node.args) > 2 or node.kwargs:
            return None  # a factor for one of them
        found = [function(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
        return Range(min(found), max(found))

    return rule


def _negated(ranges: Ranges, node: Node) -> Range | None:
    a = ranges.of(node.args[0])
    return None if a is None else Range(-a.high, -a.low)


def _absolute(ranges: Ranges, node: Node) -> Range | None:
    a = ranges.of(node.args[0])
    if a is None:
        return None
    return Range(0, max(abs(a.low), abs(a.high)))


def _joined(ranges: Ranges, node: Node) -> Range | None:
    return ranges._union(node.args[0])


def _either(ranges: Ranges, node: Node) -> Range | None:
    return ranges._union(node.args[1:3])


def _filled(ranges: Ranges, node: Node) -> Range | None:
    return ranges._union((node.args[0], node.args[2]))


def _counted(ranges: Ranges, node: Node) -> Range | None:
    """``arange``: from its first to its last."""
    bounds = [ranges.of(value) for value in node.args[:2]]
    if None in bounds or (len(node.args) > 2 and not isinstance(node.args[2], int)):
        return None
    low, high = (Range(0, 0), bounds[0]) if len(bounds) == 1 else bounds
    assert low is not None
    assert high is not None
    step = node.args[2] if len(node.args) > 2 else 1
    if step > 0:  # type: ignore[operator]  # an int, as was looked for
        return Range(low.low, max(low.low, high.high - 1))
    return low | high


def _constant(value: Callable[[Node], object]) -> Callable[[Ranges, Node], Range | None]:
    return lambda ranges, node: ranges.of(value(node))


def _position(ranges: Ranges, node: Node) -> Range | None:
    """An index along a dimension, or among all elements."""
    found = ranges.length(node.args[0])  # type: ignore[arg-type]
    return Range(0, found.high) if found is not None and found.fits else None


def _summed(ranges: Ranges, node: Node) -> Range | None:
    a = ranges.of(node.args[0])
    dims = node.args[1] if len(node.args) > 1 else None
    count = ranges.length(node.args[0], dims)  # type: ignore[arg-type]
    if a is None or count is None:
        return None
    return Range(min(0, a.low) * count.high, max(0, a.high) * count.high)


def _picked(ranges: Ranges, node: Node) -> Range | None:
    """``getitem`` of what gives values and indices."""
    source, which = node.args
    assert isinstance(source, Node)
    if source.target in _WITH_INDICES and which == 1:
        return _position(ranges, source)
    return ranges.of(source)


def _is_float(value: object) -> bool:
    return isinstance(value, Node) and bool(value.meta["val"].is_floating_point())


def _masked(ranges: Ranges, node: Node) -> Range | None:
    """Of two that are not negative: no more than the lesser of their greatest."""
    a, b = (ranges.of(value) for value in node.args[:2])
    if a is None or b is None or min(a.low, b.low) < 0:
        return None
    return Range(0, max(a.high, b.high) * 2)


_WITH_INDICES = {aten.topk.default, aten.sort.default, aten.sort.stable, aten.max.dim, aten.min.dim}
# The values of the first argument, in another place, number or dtype.
_SAME = {
    aten.reshape.default, aten.view.default, aten._unsafe_view.default, aten.permute.default,
    aten.transpose.int, aten.t.default, aten.unsqueeze.default, aten.squeeze.default,
    aten.squeeze.dim, aten.squeeze.dims, aten.expand.default, aten.expand_as.default,
    aten.slice.Tensor, aten.select.int, aten.clone.default, aten.alias.default, aten.flip.default,
    aten.repeat.default, aten.flatten.using_ints, aten.unflatten.int, aten.detach.default,
    aten._to_copy.default, aten.to.dtype, aten.index.Tensor, aten.index_select.default,
    aten.gather.default, aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default,
    aten.unbind.int, aten.contiguous.default, aten.roll.default, aten.tile.default,
    aten.repeat_interleave.self_int, aten.max.default, aten.min.default, aten.amax.default,
    aten.amin.default, aten.max.dim, aten.min.dim, aten.topk.default, aten.sort.default,
    aten.sort.stable, aten.lift_fresh_copy.default,
}  # fmt: skip
_RULES: dict[object, Callable[[Ranges, Node], Range | None]] = {
    operator.getitem: _picked,
    aten.add.Tensor: _corners(operator.add), aten.add.Scalar: _corners(operator.add),
    aten.sub.Tensor: _corners(operator.sub), aten.sub.Scalar: _corners(operator.sub),
    aten.rsub.Scalar: _corners(lambda a, b: b - a),
    aten.mul.Tensor: _corners(operator.mul), aten.mul.Scalar: _corners(operator.mul),
    aten.maximum.default: _corners(max), aten.minimum.default: _corners(min),
    aten.neg.default: _negated, aten.abs.default: _absolute,
    aten.bitwise_and.Tensor: _masked, aten.bitwise_or.Tensor: _masked,
    aten.cat.default: _joined, aten.stack.default: _joined,
    aten.where.self: _either,
    aten.masked_fill.Scalar: _filled, aten.masked_fill.Tensor: _filled,
    aten.arange.default: _counted, aten.arange.start: _counted, aten.arange.start_step: _counted,
    aten.full.default: _constant(lambda n: n.args[1]),
    aten.full_like.default: _constant(lambda n: n.args[1]),
    aten.new_full.default: _constant(lambda n: n.args[2]),
    aten.scalar_tensor.default: _constant(lambda n: n.args[0]),
    **{f: _constant(lambda n: 0) for f in (
        aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)},
    **{f: _constant(lambda n: 1) for f in (
        aten.ones.default, aten.ones_like.default, aten.new_ones.default)},
    aten.argmax.default: _position, aten.argmin.default: _position, aten.argsort.default: _position,
    aten.sum.default: _summed, aten.sum.dim_IntList: _summed, aten.cumsum.default: _summed,
}  # fmt: skip
