"""The partitioner of candidates without one: all of the program on the one target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

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


def coverage(support: Support, operations: Collection[str]) -> str:
    """``""`` where all ``operations`` are supported, else how many, and the commonest reason.

    :param operations: names of the compute nodes; a backend may answer about others, too.
    """
    reasons = Counter(support.unsupported[n] for n in operations if n in support.unsupported)
    if not reasons:
        return ""
    reason, _ = reasons.most_common(1)[0]
    return f"covers {len(operations) - reasons.total()} of {len(operations)} operations: {reason}"
