"""Partitioners decide which node of a program runs on which target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from hardpoint.interfaces.backend import Support
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

Objective = Literal["latency", "throughput", "size", "memory"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionerInfo:
    """What a partitioner is.

    :param requires_api: (major, minor) of the contract it was written for; no default on purpose.
    :param objectives: the objectives it can optimise for.
    :param uses_costs: it minimises the predicted costs it is given. Where false, it goes by the
        order of the targets alone.
    """

    requires_api: tuple[int, int]
    summary: str
    objectives: tuple[Objective, ...]
    uses_costs: bool = False


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """A candidate target, in the caller's order of preference, and what it can run."""

    target: Target
    device: Device
    support: Support


@dataclass(frozen=True, slots=True)
class Costs:
    """Predicted costs that a partitioner may use; either may be absent.

    :param node_seconds: predicted seconds of one node on one target.
    :param transfer_seconds: predicted seconds to move that many bytes between two targets.
    :param basis: where the figures come from, in words; shown beside every predicted number.
    """

    node_seconds: Callable[[Node, Target], float] | None = None
    transfer_seconds: Callable[[int, Target, Target], float] | None = None
    basis: str = "none"


@dataclass(frozen=True, slots=True)
class Assignment:
    """The answer: every compute node's target.

    :param targets: name of node -> target.
    :param reasons: name of node -> why it runs there, in words, where there is something to say.
    """

    targets: Mapping[str, Target]
    reasons: Mapping[str, str] = field(default_factory=dict)


class Partitioner(ABC):
    """One partitioner, opened."""

    @abstractmethod
    def partition(
        self,
        program: ExportedProgram,
        targets: Sequence[TargetInfo],
        objective: Objective,
        costs: Costs,
    ) -> Assignment:
        """Assign every compute node (``hardpoint.planning.compute_nodes``) to a supporting target.

        The same arguments give the same answer. Where a device states its memory
        (:attr:`Device.memory`, bytes), the weights that land on it fit.

        :raises PlanError: no assignment is possible, with the nodes that nobody supports, or with
            the bytes that fit nowhere.
        """
