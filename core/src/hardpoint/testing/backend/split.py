"""The kit's own partitioner: each node where it is claimed first, but for those sent elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from torch.export import ExportedProgram

from hardpoint.interfaces.partitioner import (
    Assignment,
    Costs,
    Objective,
    Partitioner,
    TargetInfo,
)
from hardpoint.planning.graph import compute_nodes

Away = Callable[[Sequence[str]], Collection[str]]


def nowhere(claimed: Sequence[str]) -> Collection[str]:
    """No node is sent away."""
    return ()


def alternate(most: int) -> Away:
    """Every second claimed node is sent away; where that makes too many pieces, runs of nodes.

    :param most: about how many pieces are left.
    """

    def away(claimed: Sequence[str]) -> Collection[str]:
        run = max(1, -(-len(claimed) // (2 * most)))
        return {name for i, name in enumerate(claimed) if i // run % 2}

    return away


def only(name: str) -> Away:
    """All but this node are sent away."""
    return lambda claimed: {other for other in claimed if other != name}


class FirstFit(Partitioner):
    """To the first target that supports it; what ``away`` names, to the last target."""

    def __init__(self, away: Away = nowhere) -> None:
        self._away = away

    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """Assign every compute node."""
        names = [n.name for n in compute_nodes(program)]
        away = set(self._away([n for n in names if n in targets[0].support.supported]))
        return Assignment(
            {
                name: targets[-1].target
                if name in away
                else next(t.target for t in targets if name in t.support.supported)
                for name in names
            }
        )
