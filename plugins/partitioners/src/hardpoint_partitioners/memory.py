"""Which weights lie on which target, and whether more fit: ``Device.memory`` is a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch.export.graph_signature import InputKind

from hardpoint import Target, TargetInfo

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

_Place = tuple[str, str, int | None]  # backend, device, rank: two names of one device are one


class Memory:
    """The weights (parameters, buffers, constants) of the nodes put on each device so far.

    A weight counts once on each device, whatever the number of nodes and names that use it.
    Activations are not counted: what a backend needs for them is its own business.
    """

    def __init__(self, program: ExportedProgram, targets: Sequence[TargetInfo]) -> None:
        self._weights = _weights(program)
        self._place: dict[Target, _Place] = {
            info.target: (info.target.backend, info.device.id, info.target.rank) for info in targets
        }
        self._room = {self._place[info.target]: info.device.memory for info in targets}
        self._users: dict[_Place, Counter[int]] = {place: Counter() for place in self._room}
        self._taken: Counter[_Place] = Counter()

    def lack(self, node: Node, target: Target) -> str:
        """Why the node's weights do not fit there any more, in words, or ``""``."""
        place = self._place[target]
        room = self._room[place]
        if room is None:
            return ""
        there = self._users[place]
        more = sum(size for key, size in self._of(node).items() if not there[key])
        taken = self._taken[place]
        if not more or taken + more <= room:
            return ""
        return (
            f"its memory is full: {taken:,} of {room:,} bytes are taken by weights, "
            f"and this needs {more:,} more"
        )

    def put(self, node: Node, target: Target) -> None:
        """Count the node's weights there."""
        place = self._place[target]
        for key, size in self._of(node).items():
            if not self._users[place][key]:
                self._taken[place] += size
            self._users[place][key] += 1

    def take_away(self, node: Node, target: Target) -> None:
        """Undo :meth:`put`."""
        place = self._place[target]
        for key, size in self._of(node).items():
            self._users[place][key] -= 1
            if not self._users[place][key]:
                self._taken[place] -= size

    def _of(self, node: Node) -> Mapping[int, int]:
        """The node's weights: address -> bytes."""
        held = (self._weights.get(used.name) for used in node.all_input_nodes)
        return dict(weight for weight in held if weight is not None)


def _weights(program: ExportedProgram) -> dict[str, tuple[int, int]]:
    """Placeholder -> address and bytes of the weight that it stands for; tied weights are one."""
    found: dict[str, tuple[int, int]] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT or spec.target is None:
            continue
        value = program.state_dict.get(spec.target, program.constants.get(spec.target))
        if isinstance(value, torch.Tensor):
            found[spec.arg.name] = (value.data_ptr(), value.nbytes)
    return found
