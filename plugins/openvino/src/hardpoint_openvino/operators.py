"""Operator by operator: what OpenVINO gets right, and what is declined, with the reason.

The table is what was measured right against eager PyTorch, sample by sample of PyTorch's operator
database and with NaN, infinities and large integers put in (README, "What it claims"); an operator
that is not in it is declined.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator

import torch
from torch.fx import Node

from hardpoint_openvino.ranges import Ranges
from hardpoint_openvino.recurrent import RECURRENT, refusal as recurrent_refusal
from hardpoint_openvino.tables import ANY_DTYPE, ARITHMETIC, COMPARISONS, FLOATS, LOGICAL, SPECIAL

_FLOAT = frozenset({torch.float32, torch.float16, torch.bfloat16})
_WIDE_INTEGERS = frozenset({torch.int64, torch.int32})
_DTYPES = _FLOAT | _WIDE_INTEGERS | {torch.bool, torch.uint8, torch.int8}
# Arithmetic on sizes, which the front end computes in integers.
_SCALARS: frozenset[object] = frozenset(
    {
        torch.ops.aten.sym_size.int, operator.add, operator.sub, operator.mul, operator.floordiv,
        operator.getitem,
    }
)  # fmt: skip
# Their numbers among the arguments become elements.
_FILLING = frozenset(
    {
        "masked_fill", "full", "full_like", "new_full", "scalar_tensor", "constant_pad_nd", "pad",
        "index_fill", "scatter",
    }
)  # fmt: skip
_IN_32_BITS = "OpenVINO computes int64 in 32 bits, and it is not certain that every number fits"


def scalar_refusal(node: Node) -> str:
    """Why a number of the graph cannot be computed there, or ``""``."""
    if node.target not in _SCALARS:
        return f"its argument {node.name!r} is made by {node.target}, which OpenVINO does not take"
    return ""


def why_not(node: Node, ranges: Ranges) -> str:
    """Why a compute node is declined, or ``""``."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return f"{target} is no operator of ATen"
    name = target._opname
    for tensor in (*_tensors(node), *_results(node)):
        if tensor.dtype not in _DTYPES:
            words = "computed in float32" if tensor.dtype is torch.float64 else "unknown"
            return f"{str(tensor.dtype).removeprefix('torch.')} is {words} to OpenVINO"
        if tensor.layout is not torch.strided:
            return f"a tensor of layout {tensor.layout} is unknown to OpenVINO"
        if tensor.dim() > 8:
            return f"a tensor has {tensor.dim()} dimensions"
    if any(_unbacked(t) for t in _results(node)):
        return "the size of its result depends on the data"
    if target in RECURRENT:
        return recurrent_refusal(node)
    special = SPECIAL.get(name)
    if special is not None:
        reason = special(node)
        if reason:
            return reason
    for names, rule in _FAMILIES:
        if name in names:
            return rule(node, ranges)
    return f"OpenVINO was not proven right on {target}"


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    """The tensors among its arguments."""
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if isinstance(value, torch.Tensor):
            yield value


def _results(node: Node) -> Iterator[torch.Tensor]:
    value = node.meta.get("val")
    for one in value if isinstance(value, (tuple, list)) else (value,):
        if isinstance(one, torch.Tensor):
            yield one


def _unbacked(tensor: torch.Tensor) -> bool:
    from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

    return bool(free_unbacked_symbols(tensor.shape))


def _any_dtype(node: Node, ranges: Ranges) -> str:
    """Moves and conversions: a number that fits goes through as it is."""
    sources, results = list(_tensors(node)), list(_results(node))
    made = {r.dtype for r in results}
    whole = made & (_DTYPES - _FLOAT - {torch.bool})
    if whole and sources and all(t.dtype in _FLOAT for t in sources):
        return "a float made an integer is cut to 32 bits by OpenVINO"
    if not _places_count_from_the_start(node, ranges):
        return "among several indices, negative ones are taken for others by OpenVINO"
    # What comes in from outside is refused at the call where it does not fit.
    held: list[object] = [node, *node.all_input_nodes]
    if node.target._opname in _FILLING:  # type: ignore[union-attr]
        held += node.args[1:]
    known = [ranges.of(value) for value in held]
    if made & _WIDE_INTEGERS and any(r is not None and not r.fits for r in known):
        return _IN_32_BITS
    return ""


def _places_count_from_the_start(node: Node, ranges: Ranges) -> bool:
    """Whether none of several indices can be negative; a single one may be."""
    if node.target._opname not in ("index", "index_put"):  # type: ignore[union-attr]
        return True
    places = [place for place in node.args[1] if isinstance(place, Node)]  # type: ignore[union-attr]
    known = [ranges.of(place) for place in places]
    return len(places) < 2 or all(one is not None and one.low >= 0 for one in known)


def _floats(node: Node, ranges: Ranges) -> str:
    """Only floats come out, or what is made of them; integers go in as indices alone."""
    for tensor in _results(node):
        if tensor.dtype not in _FLOAT and tensor.dtype is not torch.bool:
            return _integers_of(node, ranges)
    sources = list(_tensors(node))
    if sources and sources[0].dtype not in _FLOAT:
        kind = str(sources[0].dtype).removeprefix("torch.")
        return f"it was proven right on floats only, and takes {kind}"
    return ""


def _integers_of(node: Node, ranges: Ranges) -> str:
    """Indices along a dimension fit; other integers must be known to."""
    found = ranges.of(node)
    return "" if found is not None and found.fits else _IN_32_BITS


def _arithmetic(node: Node, ranges: Ranges) -> str:
    """Floats as they are; integers where each operand and the result are known to fit."""
    results = list(_results(node))
    if all(r.dtype in _FLOAT for r in results):
        return ""
    if any(r.dtype not in _WIDE_INTEGERS for r in results):
        kind = str(results[0].dtype).removeprefix("torch.")
        return f"arithmetic in {kind} was not proven right"
    for value in (node, *node.args[:2]):
        if isinstance(value, (Node, int)) and not isinstance(value, bool):
            found = ranges.of(value)
            if found is None or not found.fits:
                return _IN_32_BITS
    return ""


def _compare(node: Node, ranges: Ranges) -> str:
    """Of floats; of integers of which one is known to fit, since a call refuses others."""
    operands = node.args[:2]
    kinds = {t.dtype for t in _tensors(node)}
    if kinds <= _FLOAT or kinds == {torch.bool}:
        return ""
    if kinds & _FLOAT or any(isinstance(o, float) for o in operands):
        return "integers compared with floats were not proven right"
    known = [ranges.of(o) for o in operands]
    if not any(r is not None and r.fits for r in known):
        return _IN_32_BITS
    if any(r is not None and not r.fits for r in known):
        return _IN_32_BITS
    return ""


def _logical(node: Node, ranges: Ranges) -> str:
    if all(t.dtype is torch.bool or t.dtype in _FLOAT for t in _tensors(node)):
        return ""
    return "it was proven right on booleans and floats only"


_FAMILIES: tuple[tuple[frozenset[str], Callable[[Node, Ranges], str]], ...] = (
    (ANY_DTYPE, _any_dtype),
    (FLOATS, _floats),
    (ARITHMETIC, _arithmetic),
    (COMPARISONS, _compare),
    (LOGICAL, _logical),
)
