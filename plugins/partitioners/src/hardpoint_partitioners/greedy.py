"""Greedy assignment by preference, with a reason for every operation that misses its first choice.

The method is the one of ONNX Runtime's execution providers and ExecuTorch's partitioner list:
first match in the caller's order; a target whose memory is full is passed over, as ONNX Runtime
does since its pull request 22766. Shape operators then follow their neighbours, because a segment
of nothing but views costs a boundary and wins nothing (research/export.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from hardpoint_partitioners.memory import Memory

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


class CapabilityPartitioner(Partitioner):
    """Each operation on the first target, in order of preference, that runs it and has room."""

    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """Assign every compute node; linear in the size of the graph.

        :raises PlanError: no target supports some node, or none has memory left for its weights.
        """
        work = _Work(targets, Memory(program, targets), {}, {})
        nodes = compute_nodes(program)
        for node in nodes:
            work.assign(node)
        if len(targets) > 1:
            views = [node for node in nodes if is_view(node)]
            for node in reversed(views):
                work.join(node, node.users)
            for node in views:
                work.join(node, node.all_input_nodes)
        return Assignment(work.chosen, work.reasons)


@dataclass
class _Work:
    """One assignment in the making."""

    targets: Sequence[TargetInfo]
    memory: Memory
    chosen: dict[str, Target]
    reasons: dict[str, str]

    def assign(self, node: Node) -> None:
        """Give the node its first choice, else the next one, and say why."""
        passed: list[str] = []
        supported = False
        for candidate in self.targets:
            if node.name in candidate.support.supported:
                supported = True
                lack = self.memory.lack(node, candidate.target)
                if not lack:
                    self._put(node, candidate.target, "; ".join(passed))
                    return
                passed.append(f"not on {candidate.target}: {lack}")
            else:
                why = candidate.support.unsupported.get(node.name, "not supported")
                passed.append(f"not on {candidate.target}: {why}")
        verb, remedy = (
            ("has memory left for", "add a target, or choose a smaller precision")
            if supported
            else ("supports", "add a target that does, e.g. targets=['...', 'cpu']")
        )
        raise PlanError(
            f"no target {verb} {node.name} ({node.target})",
            provider="partitioner:capability",
            cause="; ".join(passed) or "there are no targets",
            remedy=remedy,
        )

    def join(self, view: Node, neighbours: Iterable[Node]) -> None:
        """Move a view to the one target that all these neighbours share, if it can run there."""
        near = {self.chosen[n.name] for n in neighbours if n.name in self.chosen}
        if len(near) != 1:
            return
        (target,) = near
        able = any(t.target == target and view.name in t.support.supported for t in self.targets)
        if target != self.chosen[view.name] and able and not self.memory.lack(view, target):
            self.memory.take_away(view, self.chosen[view.name])
            self._put(view, target, f"shape work only: stays with its neighbours on {target}")

    def _put(self, node: Node, target: Target, reason: str) -> None:
        self.chosen[node.name] = target
        self.memory.put(node, target)
        if reason:
            self.reasons[node.name] = reason
