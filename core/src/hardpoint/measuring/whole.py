"""The partitioner of candidates without one: all of the program on the one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch.export import ExportedProgram

from hardpoint.interfaces.backend import Support
from hardpoint.interfaces.partitioner import (
    Assignment,
    Costs,
    Objective,
    Partitioner,
    TargetInfo,
)
from hardpoint.planning.graph import compute_nodes


class Whole(Partitioner):
    """Assigns everything to the first target; the planner has checked that it covers all."""

    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """All on one."""
        return Assignment({n.name: targets[0].target for n in compute_nodes(program)})


def coverage(support: Support, total: int) -> str:
    """``""`` where all ``total`` operations are supported, else how many, and the first reason."""
    if not support.unsupported:
        return ""
    reasons = Counter(support.unsupported.values())
    reason, _ = reasons.most_common(1)[0]
    return f"covers {total - len(support.unsupported)} of {total} operations: {reason}"
