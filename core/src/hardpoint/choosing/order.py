"""The order in which candidates are tried, since a budget may end before all were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter

from torch.fx import Node

from hardpoint.choosing.request import Request
from hardpoint.choosing.row import Row
from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.interfaces.backend import Precision
from hardpoint.measuring.candidate import Candidate
from hardpoint.planning.costs import flops, value_bytes
from hardpoint.program.program import Program, held_tensors

# A precision whose usual error is that many times the limit is tried last.
_HOPELESS = 5.0
# FLOPs for each byte of weights. Below the ridge of a machine's roofline memory is what a call
# waits for (S. Williams, A. Waterman and D. Patterson, Communications of the ACM 52 (2009)): at 5
# with two AVX-512 cores and 32 GB/s, above 20 with GPUs. A product of 16 rows has 8 in fp32.
_MEMORY_BOUND = 8.0
# Narrow weights alone: they spare memory and its traffic, not arithmetic.
_NARROW_WEIGHTS: tuple[Precision, ...] = ("int8w", "int4w")


def by_promise(
    candidates: Sequence[Candidate], precisions: Sequence[Precision], best: Callable[[], list[Row]]
) -> Iterator[Candidate]:
    """Candidates of one precision each, precision by precision; lazily, as what was tried tells.

    :param best: gives what runs so far, the best first: its target comes first in the next one.
    """
    for precision in precisions:
        now = [c for c in candidates if precision in c.precisions.values()]
        targets = [row.candidate.target for row in best()]
        yield from sorted(now, key=lambda c: (*targets, c.target).index(c.target))


def variants_by_promise(candidates: Sequence[Candidate], best: Sequence[Row]) -> list[Candidate]:
    """Variants of the precision that is fastest by default first; of each precision one variant of
    each target in turn, as the one that helps most may be that of a target that is slow without.
    Last come variants of what fails by default: they are compiled as long, and mostly fail alike.

    :param best: what runs by default, the best first.
    """
    precisions = [row.candidate.precision for row in best]
    ways = [(row.candidate.target, row.candidate.precision) for row in best]
    places = []
    seen = Counter[tuple[str, str]]()
    for candidate in candidates:
        way = candidate.target, candidate.precision
        nth, seen[way] = seen[way], seen[way] + 1
        place = (*ways, way).index(way)
        rank = way not in ways, (*precisions, way[1]).index(way[1]), nth, place
        places.append((rank, candidate))
    return [candidate for _, candidate in sorted(places, key=itemgetter(0))]


def in_order(program: Program, request: Request) -> list[Precision]:
    """The request's precisions, most promising first.

    Of those with integers: narrow weights before int8 where weights are what the objective or a
    call is about, after it otherwise. Last comes what is hardly ever within the error.
    """
    narrow_first = request.objective in ("size", "memory") or _waits_for_weights(program)

    def place(precision: Precision) -> tuple[bool, int]:
        hopeless = DEFAULT_MAX_ERROR[precision] > _HOPELESS * request.max_error[precision]
        if precision in _NARROW_WEIGHTS:
            return hopeless, 0 if narrow_first else 2
        return hopeless, 1 if precision == "int8" else -1

    return sorted(request.precisions, key=place)


def _waits_for_weights(program: Program) -> bool:
    """Whether its products do little with each byte of the weights that they read."""
    held, work, read = held_tensors(program.exported), 0, set[Node]()
    for node in program.exported.graph.nodes:
        weights = {w for w in map(_source, node.all_input_nodes) if w.name in held}
        if weights and (operations := flops(node)):
            work += operations
            read |= weights
    return 0 < work < _MEMORY_BOUND * sum(map(value_bytes, read))


def _source(node: Node) -> Node:
    """What ``node`` is a view or a cast of."""
    while node.op == "call_function" and len(node.all_input_nodes) == 1 and not flops(node):
        node = node.all_input_nodes[0]
    return node
