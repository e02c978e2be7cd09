"""Indices that may be out of range: a segment that uses any has one result more, which tells.

PyTorch refuses such an index. OpenVINO's CPU plugin reads zeros for one past the end, counts a
negative one from the end also where PyTorch does not, and writes wherever a negative one points:
in silence, or with a crash. An index that is not certain to fit is held within its limits, and told
of where it had to be.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, Node

from hardpoint import InputError
from hardpoint_openvino.ranges import Ranges

aten = torch.ops.aten
# Operators that take an index along a dimension -> whether -1 is the last place.
_ALONG = {
    "index_select": False, "gather": False, "index_copy": False, "scatter": False,
    "scatter_add": False, "index_fill": True,
}  # fmt: skip
_SEVERAL = ("index", "index_put")
_MASKS = (torch.bool, torch.uint8)


class _Use(NamedTuple):
    """``places`` along dimension ``dim`` of ``source``.

    :param at: which of the arguments it is; of a list of several, which of the list.
    """

    user: Node
    source: Node
    dim: int
    places: Node
    at: int
    counts_back: bool

    def replace(self, held: Node) -> None:
        """Let ``held`` stand there, and not where the user takes ``places`` for something else."""
        if self.user.target._opname not in _SEVERAL:  # type: ignore[union-attr]
            self.user.update_arg(self.at, held)
        else:
            several = list(self.user.args[1])  # type: ignore[arg-type]
            several[self.at] = held
            self.user.update_arg(1, several)


def check_indices(graph: Graph, known: dict[Node, Node], ranges: Ranges) -> list[str]:
    """Hold indices in range, and append a result that tells which were not: a vector of booleans.

    :param known: node of ``graph`` -> the node of the program that ``ranges`` is of.
    :return: the name of each index's user, in that order; empty: all are certain to fit, and there
        is no such result.
    """
    names, flags = [], []
    for use in [use for node in list(graph.nodes) for use in _uses(node)]:
        if not _certain(use, known, ranges):
            names.append(use.user.name)
            flags.append(_held_within(graph, use))
    if flags:
        end = graph.output_node()
        with graph.inserting_before(end):
            told = graph.call_function(aten.stack.default, (flags,))
        end.args = ((*end.args[0], told),)  # type: ignore[misc]
    return names


def _uses(node: Node) -> Iterator[_Use]:
    if not isinstance(node.target, torch._ops.OpOverload):
        return
    name, given = node.target._opname, node.args
    if name == "embedding":
        yield _Use(node, given[0], 0, given[1], 1, False)  # type: ignore[arg-type]
    elif name in _ALONG and isinstance(given[2], Node):
        source, dim, index = given[:3]
        if source.meta["val"].dim():  # type: ignore[union-attr]
            yield _Use(node, source, dim, index, 2, _ALONG[name])  # type: ignore[arg-type]
    elif name in _SEVERAL:
        dim = 0
        for at, index in enumerate(given[1]):  # type: ignore[arg-type]
            value = index.meta["val"] if isinstance(index, Node) else None
            if value is not None and value.dtype in _MASKS:
                dim += value.dim()
                continue
            if value is not None:
                yield _Use(node, given[0], dim, index, at, True)  # type: ignore[arg-type]
            dim += 1


def _certain(use: _Use, known: dict[Node, Node], ranges: Ranges) -> bool:
    found = ranges.of(known[use.places])
    if found is None:
        return False
    least = ranges.size(known[use.source], use.dim).low
    return found.high < least and found.low >= (-least if use.counts_back else 0)


def _held_within(graph: Graph, use: _Use) -> Node:
    """Let the user have an index that fits; whether it did, a boolean without dimensions."""
    with graph.inserting_before(use.user):
        size: Any = use.source.meta["val"].shape[use.dim]
        if not isinstance(size, int):
            size = graph.call_function(aten.sym_size.int, (use.source, use.dim))
        low, high = _minus(graph, 0, size) if use.counts_back else 0, _minus(graph, size, 1)
        held = graph.call_function(aten.clamp.default, (use.places, low, high))
        held.meta = dict(use.places.meta)
        other = graph.call_function(aten.ne.Tensor, (use.places, held))
        beyond = graph.call_function(aten.any.default, (other,))
    use.replace(held)
    return beyond


def _minus(graph: Graph, a: int | Node, b: int | Node) -> int | Node:
    if isinstance(a, int) and isinstance(b, int):
        return a - b
    return graph.call_function(operator.sub, (a, b))


def refuse_beyond(told: torch.Tensor, names: Sequence[str]) -> None:
    """Refuse the results of a call with an index that was out of range.

    :param told: what :func:`check_indices` appended. :param names: what it returned.
    :raises InputError: some index was; says of which operators.
    """
    beyond = told.numpy()  # PyTorch's kernels run nothing of a segment
    if beyond.any():
        users = [name for name, one in zip(names, beyond, strict=True) if one]
        raise InputError(
            f"an index is out of range in {', '.join(users)}",
            cause="OpenVINO reads another place, or zeros, where PyTorch refuses",
            remedy="check the inputs that the index is made of",
        )
