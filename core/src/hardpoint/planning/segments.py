"""Cut a program into segments: an acyclic schedule for any assignment of nodes to targets.

The group (target, level) is a segment, where the level of a node is the greatest number of changes
of target on any way to it. A segment then depends on lower levels only, or on none, so the segment
graph is acyclic by construction. Groups of one target are merged afterwards where no cycle results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.export import ExportedProgram
from torch.fx import Node

from hardpoint.interfaces.kinds import Target
from hardpoint.planning.graph import (
    is_compute,
    is_ordered,
    is_scalar,
    placeholders,
    producer,
)

# Merging compares all pairs of segments; past this many it is skipped (the plan stays valid).
MERGE_LIMIT = 400


def cut(program: ExportedProgram, targets: Mapping[str, Target]) -> list[tuple[Target, list[Node]]]:
    """Segments in an order in which they can run: (target, compute nodes in program order).

    :param targets: every compute node's target, by node name.
    """
    nodes = [n for n in program.graph.nodes if is_compute(n)]
    before = dependencies(program, nodes)
    groups: dict[tuple[int, str], list[Node]] = {}
    level: dict[Node, int] = {}
    for node in nodes:
        target = targets[node.name]
        level[node] = max((level[u] + (targets[u.name] != target) for u in before[node]), default=0)
        groups.setdefault((level[node], str(target)), []).append(node)
    ordered = [groups[key] for key in sorted(groups)]
    merged = _merge(ordered, before, targets)
    return [(targets[group[0].name], group) for group in merged]


def dependencies(program: ExportedProgram, nodes: Sequence[Node]) -> dict[Node, set[Node]]:
    """Compute node -> the compute nodes that must have run before it.

    Through ``getitem`` and through scalars; and, for random and effectful nodes, their like before
    them, so that random numbers are drawn in the program's order.
    """
    anchors = size_anchors(program)
    scalar_sources: dict[Node, set[Node]] = {}
    before: dict[Node, set[Node]] = {}
    last_ordered: Node | None = None
    for node in program.graph.nodes:
        if is_scalar(node):
            scalar_sources[node] = set() if node in anchors else _sources(node, scalar_sources)
        elif is_compute(node):
            before[node] = _sources(node, scalar_sources)
            if is_ordered(node):
                if last_ordered is not None:
                    before[node].add(last_ordered)
                last_ordered = node
    return before


def _sources(node: Node, scalar_sources: Mapping[Node, set[Node]]) -> set[Node]:
    found: set[Node] = set()
    for used in node.all_input_nodes:
        if is_scalar(used):
            found |= scalar_sources[used]
        else:
            made_by = producer(used)
            if is_compute(made_by):
                found.add(made_by)
    return found


def size_anchors(program: ExportedProgram) -> dict[Node, tuple[Node, int]]:
    """Scalar node -> (user input, dimension) that has exactly this size, where there is one.

    Such a size can be had anywhere, without waiting for the tensor it was first read from.
    """
    user_inputs = set(program.graph_signature.user_inputs)
    sizes: dict[str, tuple[Node, int]] = {}
    for node in placeholders(program.graph):
        if node.name in user_inputs:
            for dim, size in enumerate(node.meta["val"].shape):
                if not isinstance(size, int):
                    sizes.setdefault(str(size.node.expr), (node, dim))
    return {
        node: sizes[str(node.meta["val"].node.expr)]
        for node in program.graph.nodes
        if is_scalar(node)
        and hasattr(node.meta["val"], "node")
        and str(node.meta["val"].node.expr) in sizes
    }


def _merge(
    groups: list[list[Node]],
    before: Mapping[Node, set[Node]],
    targets: Mapping[str, Target],
) -> list[list[Node]]:
    """Merge groups of one target where no cycle results; returns them in a valid order."""
    place = {node: i for i, group in enumerate(groups) for node in group}
    parents = [
        {place[u] for node in group for u in before[node]} - {i} for i, group in enumerate(groups)
    ]
    alive = dict(enumerate(groups))
    if len(groups) <= MERGE_LIMIT:
        order = list(alive)
        for i in order:
            for j in order:
                if j >= i or j not in alive or i not in alive:
                    continue
                if targets[alive[i][0].name] != targets[alive[j][0].name]:
                    continue
                if _reaches(j, i, parents) or _reaches(i, j, parents):
                    continue
                alive[j] = alive[j] + alive.pop(i)
                for ps in parents:
                    if i in ps:
                        ps.discard(i)
                        ps.add(j)
                parents[j] = (parents[j] | parents[i]) - {i, j}
                break
    return _schedule(alive, parents, list(before))


def _reaches(start: int, end: int, parents: Sequence[set[int]]) -> bool:
    """Whether ``end`` depends on ``start`` through a third group (a merge would close a cycle)."""
    todo = [p for p in parents[end] if p != start]
    seen = set(todo)
    while todo:
        group = todo.pop()
        if group == start:
            return True
        new = parents[group] - seen
        seen |= new
        todo.extend(new)
    return False


def _schedule(
    groups: dict[int, list[Node]], parents: Sequence[set[int]], program_order: Sequence[Node]
) -> list[list[Node]]:
    """Topological order, preferring the group whose first node comes first in the program."""
    rank = {node: i for i, node in enumerate(program_order)}
    waiting = {g: set(parents[g]) for g in groups}
    first = {g: min(rank[n] for n in nodes) for g, nodes in groups.items()}
    done: list[list[Node]] = []
    while waiting:
        ready = min((g for g, ps in waiting.items() if not ps), key=first.__getitem__)
        del waiting[ready]
        for ps in waiting.values():
            ps.discard(ready)
        done.append(sorted(groups[ready], key=rank.__getitem__))
    return done
