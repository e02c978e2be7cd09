"""Rewrite a segment so that its float32 arithmetic is done in bfloat16, or in float16.

Every value of the program has one dtype there; here it may be had in two forms, as declared
(*wide*) and in the one asked for (*narrow*; bfloat16 below), cast where a node wants the other.

- A node runs narrow if its operator may (``narrow_ops``) and one of its inputs is *hot*: it comes
  from a float input of the segment or from a parameter. Positions, masks and tables made of
  integers and constants alone stay exact, and are cast where they meet the data.
- Each result of a narrow node has the program's dtype with bfloat16 in float32's place, so that
  type promotion downstream goes as it did in the program. Dtypes given as arguments follow suit.
- Finite numbers beyond bfloat16's range, such as ``finfo(float32).min`` in attention masks, are
  cast to its largest number, not to infinity: a row of ``-inf`` is a NaN after softmax.
- Outputs are cast back: the segment's boundary does not change.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_any, tree_map

from hardpoint_cpu import fakes, layers, narrow_ops
from hardpoint_cpu.fakes import dtype_of
from hardpoint_cpu.origin import compile_error
from hardpoint_cpu.segment import Segment

# What is computed in it instead. bfloat16 has numbers beyond float16's range, and stays.
_NARROWED = {torch.bfloat16: (torch.float32, torch.float16), torch.float16: (torch.float32,)}
_NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}
_aten = torch.ops.aten
_SIZES = (_aten.sym_size.int, _aten.sym_numel.default, _aten.sym_stride.int)


@dataclass
class _Forms:
    """One value of the program, in the forms that exist so far.

    :param dtype: as declared; ``None`` for what is not one tensor.
    :param hot: depends on data, not on positions and constants alone.
    :param extreme: may hold finite numbers beyond bfloat16's range.
    """

    dtype: torch.dtype | None
    hot: bool
    extreme: bool
    wide: Node | None = None
    narrow: Node | None = None


def to_bfloat16(segment: Segment) -> Segment:
    """:func:`to_half` with bfloat16."""
    return to_half(segment, torch.bfloat16)


def to_half(segment: Segment, dtype: torch.dtype) -> Segment:
    """``segment`` with its arithmetic in ``dtype``, and the weights that it then needs.

    :param dtype: ``torch.bfloat16`` or ``torch.float16``.
    :raises CompileError: a node that does not take it; names the node.
    """
    return _Narrower(segment, dtype).run()


class _Narrower:
    def __init__(self, segment: Segment, dtype: torch.dtype) -> None:
        self._source = segment
        self._half, self._name = dtype, _NAMES[dtype]
        self._narrowed = _NARROWED[dtype]
        self._largest = torch.finfo(dtype).max
        self._made = Segment(Graph(), subgraphs=segment.subgraphs)
        self._made.executed = replace(segment.executed)
        self._forms: dict[Node, _Forms] = {}
        self._weights: dict[tuple[object, ...], str] = {}

    def run(self) -> Segment:
        for node in self._source.graph.nodes:
            if node.op == "output":
                results = tuple(self._want(n, narrow=False) for n in node.args[0])
                self._made.graph.output(results)
            elif node.op == "call_function":
                self._call(node)
            else:
                self._take(node)
        self._made.graph.eliminate_dead_code(layers.must_stay)
        self._made.drop_unused_weights()
        return self._made

    def _take(self, node: Node) -> None:
        """An input, a weight or a sub-graph."""
        if node.op == "placeholder":
            made = self._made.graph.node_copy(node)
            made.meta = dict(node.meta)
            floating = dtype_of(node) in self._narrowed
            self._forms[node] = _Forms(dtype_of(node), floating, floating, wide=made)
        elif node.target in self._source.weights:
            _, tensor = self._source.weights[str(node.target)]
            hot = node.target in self._source.parameters and tensor.dtype in self._narrowed
            self._forms[node] = _Forms(tensor.dtype, hot, False)
        else:
            made = self._made.graph.node_copy(node)
            made.meta = dict(node.meta)
            self._forms[node] = _Forms(None, False, False, wide=made)

    def _call(self, node: Node) -> None:
        inputs = [self._forms[n] for n in node.all_input_nodes]
        hot = any(form.hot for form in inputs)
        extreme = any(form.extreme for form in inputs) or tree_any(
            self._is_extreme, (node.args, node.kwargs)
        )
        dtype = dtype_of(node)
        # Integers are exact, whatever they were counted from: a new start.
        form = _Forms(dtype, hot and (dtype is None or dtype.is_floating_point), extreme)
        picks = node.all_input_nodes[0] if _is_getitem(node) else None
        if picks is not None and self._forms[picks].narrow is not None:
            # One of several results of a narrow node: in the form that its kernel gave.
            self._add_narrow(node, form, self._results(node, picks))
        elif hot and picks is None and self._may_narrow(node):
            self._add_narrow(node, form, self._narrow_call(node))
        else:
            form.wide = self._as_declared(node)
        self._forms[node] = form

    def _may_narrow(self, node: Node) -> bool:
        """Views of what exists in the wide form only stay there: they compute nothing."""
        if not narrow_ops.is_narrow(node.target):
            return False
        if isinstance(node.target, torch._ops.OpOverload) and node.target.is_view:
            source = node.all_input_nodes[0]
            return source.op == "get_attr" or self._forms[source].narrow is not None
        return True

    def _as_declared(self, node: Node) -> Node:
        if node.target in _SIZES:  # any form has them: no cast for their sake
            made = self._made.graph.node_copy(node, self._any_form)
        else:
            made = self._made.graph.node_copy(node, lambda n: self._want(n, narrow=False))
        made.meta = dict(node.meta)
        return made

    def _any_form(self, node: Node) -> Node:
        form = self._forms[node]
        return form.wide or form.narrow or self._want(node, narrow=False)

    def _results(self, node: Node, picks: Node) -> Node:
        source = self._forms[picks].narrow
        assert source is not None
        made = self._made.graph.call_function(node.target, (source, *node.args[1:]))  # type: ignore[arg-type]
        made.meta["val"] = source.meta["val"][node.args[1]]
        return made

    def _narrow_call(self, node: Node) -> Node:
        target = node.target
        assert isinstance(target, torch._ops.OpOverload)
        kept = narrow_ops.kept(target)

        def changed(argument: Any, *, keep: bool = False) -> Any:
            if isinstance(argument, Node):
                wide = keep and self._forms[argument].dtype is torch.float32
                return self._want(argument, narrow=not wide)
            if isinstance(argument, torch.dtype):
                return self._half if argument in self._narrowed else argument
            if self._is_extreme(argument):
                return math.copysign(self._largest, argument)
            return argument

        args = tuple(
            tree_map(lambda a, k=i in kept: changed(a, keep=k), argument, is_leaf=_is_leaf)
            for i, argument in enumerate(node.args)
        )
        kwargs = {k: tree_map(changed, v, is_leaf=_is_leaf) for k, v in node.kwargs.items()}
        if self._made.executed.precision == "fp32" and not target.is_view:
            self._made.executed.precision = self._name
        return self._emit(target, args, kwargs, node)

    def _emit(
        self, target: torch._ops.OpOverload, args: Any, kwargs: Mapping[str, Any], node: Node
    ) -> Node:
        """Add a call, and learn from PyTorch what dtype its result has now."""
        return fakes.call(self._made.graph, target, args, kwargs, node, self._name)

    def _add_narrow(self, node: Node, form: _Forms, made: Node) -> None:
        """Record a narrow result; give it the dtype that the program's would have."""
        if form.dtype is not None:
            wanted = self._half if form.dtype in self._narrowed else form.dtype
            if made.meta["val"].dtype != wanted:
                made = self._cast(made, wanted)
            if form.dtype not in self._narrowed:
                form.wide = made
        form.narrow = made
        form.extreme = False

    def _want(self, node: Node, *, narrow: bool) -> Node:
        """``node``'s value in one form, cast if it exists in the other only."""
        form = self._forms[node]
        if node.op == "get_attr" and form.dtype is not None:
            return self._weight(node, form, narrow=narrow and form.dtype in self._narrowed)
        if form.dtype not in self._narrowed or not narrow:
            if form.wide is None:
                if form.narrow is None or form.dtype is None:
                    raise compile_error(
                        f"the list of tensors {node.name!r} is used whole, not item by item",
                        remedy="use precision 'fp32' for this segment",
                    )
                form.wide = self._cast(form.narrow, form.dtype)
            return form.wide
        if form.narrow is None:
            assert form.wide is not None
            outside = form.extreme and form.dtype is torch.float32  # float16 is always inside
            source = self._saturated(form.wide) if outside else form.wide
            form.narrow = self._cast(source, self._half)
        return form.narrow

    def _weight(self, node: Node, form: _Forms, *, narrow: bool) -> Node:
        """A weight, cast here and now if need be; equal ones once."""
        existing = form.narrow if narrow else form.wide
        if existing is not None:
            return existing
        name, tensor = self._source.weights[str(node.target)]
        if narrow:
            name, tensor = f"{name}@{self._name}", self._cast_weight(tensor)
        attribute = self._made.add_weight(name, tensor)
        made = self._made.graph.get_attr(attribute)
        with fakes.fake_mode(node.meta["val"]):
            made.meta["val"] = torch.empty_like(node.meta["val"], dtype=tensor.dtype)
        if narrow:
            form.narrow = made
        else:
            form.wide = made
        return made

    def _cast(self, source: Node, dtype: torch.dtype) -> Node:
        return self._emit(_aten._to_copy.default, (source,), {"dtype": dtype}, source)

    def _saturated(self, source: Node) -> Node:
        """``source``, finite numbers brought within the range; infinities and NaN stay."""
        limits = (-self._largest, self._largest)
        inside = self._emit(_aten.clamp.default, (source, *limits), {}, source)
        infinite = self._emit(_aten.isinf.default, (source,), {}, source)
        return self._emit(_aten.where.self, (infinite, source, inside), {}, source)

    def _cast_weight(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach()
        if tensor.dtype is torch.float16:
            return tensor.to(self._half)
        inside = tensor.clamp(-self._largest, self._largest)
        return torch.where(tensor.isinf(), tensor, inside).to(self._half)

    def _is_extreme(self, argument: Any) -> bool:
        finite = isinstance(argument, float) and math.isfinite(argument)
        return finite and abs(argument) > self._largest


def _is_leaf(argument: Any) -> bool:
    return isinstance(argument, Node)


def _is_getitem(node: Node) -> bool:
    return node.target is operator.getitem and dtype_of(node) is not None
