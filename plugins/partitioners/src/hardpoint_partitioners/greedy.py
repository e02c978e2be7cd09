"""Greedy assignment by preference, with a reason for every operation that misses its first choice.

The method is the one of ONNX Runtime's execution providers and ExecuTorch's partitioner list:
first match in the caller's order. Shape operators then follow their neighbours, because a
segment of nothing but views costs a boundary and wins nothing (research/export.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hardpoint import (
    Assignment,
    Costs,
    Objective,
    Partitioner,
    PlanError,
    Target,
    TargetInfo,
)
from hardpoint.planning import compute_nodes, is_view

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


class CapabilityPartitioner(Partitioner):
    """Each operation on the first target, in order of preference, that supports it."""

    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """Assign every compute node; linear in the size of the graph.

        :raises PlanError: no target supports some node.
        """
        chosen: dict[str, Target] = {}
        reasons: dict[str, str] = {}
        nodes = compute_nodes(program)
        for node in nodes:
            target, reason = _first_choice(node, targets)
            chosen[node.name] = target
            if reason:
                reasons[node.name] = reason
        if len(targets) > 1:
            self._follow(nodes, targets, chosen, reasons)
        return Assignment(chosen, reasons)

    def _follow(
        self,
        nodes: Sequence[Node],
        targets: Sequence[TargetInfo],
        chosen: dict[str, Target],
        reasons: dict[str, str],
    ) -> None:
        """Move views to the target of what they feed, else of what feeds them, where supported."""
        supported = {t.target: t.support.supported for t in targets}
        for node in reversed(nodes):
            if is_view(node):
                _move(node, _neighbours(node.users, chosen), supported, chosen, reasons)
        for node in nodes:
            if is_view(node):
                _move(node, _neighbours(node.all_input_nodes, chosen), supported, chosen, reasons)


def _first_choice(node: Node, targets: Sequence[TargetInfo]) -> tuple[Target, str]:
    refused: list[str] = []
    for candidate in targets:
        if node.name in candidate.support.supported:
            return candidate.target, "; ".join(refused)
        why = candidate.support.unsupported.get(node.name, "not supported")
        refused.append(f"not on {candidate.target}: {why}")
    raise PlanError(
        f"no target supports {node.name} ({node.target})",
        provider="partitioner:capability",
        cause="; ".join(refused) or "there are no targets",
        remedy="add a target that does, e.g. targets=['...', 'cpu']",
    )


def _neighbours(nodes: object, chosen: dict[str, Target]) -> set[Target]:
    """Targets of the assigned nodes among ``nodes``."""
    return {chosen[n.name] for n in nodes if n.name in chosen}  # type: ignore[attr-defined]


def _move(
    node: Node,
    near: set[Target],
    supported: dict[Target, frozenset[str]],
    chosen: dict[str, Target],
    reasons: dict[str, str],
) -> None:
    """Give a view the one target that all its neighbours on that side share."""
    if len(near) != 1:
        return
    (target,) = near
    if target != chosen[node.name] and node.name in supported[target]:
        chosen[node.name] = target
        reasons[node.name] = f"shape work only: stays with its neighbours on {target}"
