"""Every collective once: how it is called, and what each rank must hold afterwards.

Roots are counted within the group. What a rank only gives must be as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from hardpoint.testing.transport.ranks.values import bits, folded, numbers

# (what it is, what the rank holds, what it must hold)
Held = list[tuple[str, torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Turn:
    """One collective by one rank of one group.

    :param count: elements that a rank gives to one other.
    :param op: the reduction; ``""`` for what only moves.
    :param later: asynchronous, and waited for.
    :param strided: every tensor is the even elements of one twice as long.
    :param shares: who gives how much to whom in an all-to-all, by :data:`SHARES`.
    """

    rank: int
    size: int
    group: dist.ProcessGroup
    device: torch.device
    dtype: torch.dtype
    count: int
    op: str = ""
    later: bool = False
    strided: bool = False
    shares: str = "even"

    @property
    def all(self) -> range:
        """The ranks of the group."""
        return range(self.size)

    def of(self, rank: int, part: int = 0, count: int | None = None) -> torch.Tensor:
        """What a rank contributes: every rank knows that of every other."""
        count = self.count if count is None else count
        if self.op:
            return numbers(rank, part, count, self.dtype, self.op)
        return bits(rank, part, count, self.dtype)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """It, or a copy, on this rank's device."""
        if not self.strided:
            return tensor.to(self.device, copy=True)
        twice = torch.stack([tensor, torch.zeros_like(tensor)], 1).flatten().to(self.device)
        return twice[::2]

    def room(self, count: int | None = None) -> torch.Tensor:
        """Where something is to come; holds something else yet."""
        return self.put(self.of(self.size + 1, 9, count))

    def total(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """What the reduction must make of all ranks' parts."""
        return folded(self.op, parts)

    def call(self, name: str, *tensors: Any, **more: Any) -> None:
        """Call ``torch.distributed.<name>`` on the group, and wait for it."""
        if self.op:
            more["op"] = getattr(dist.ReduceOp, self.op)
        work = getattr(dist, name)(*tensors, group=self.group, async_op=self.later, **more)
        if self.later:
            work.wait()

    def share(self, giver: int, taker: int) -> int:
        """How many elements one rank gives another."""
        return SHARES[self.shares](self.count, giver, taker)


SHARES: dict[str, Callable[[int, int, int], int]] = {
    "even": lambda count, giver, taker: count,
    "uneven": lambda count, giver, taker: count + giver + 2 * taker,
    "some empty": lambda count, giver, taker: count if giver < taker else 0,
}


def all_reduce(turn: Turn) -> Held:
    """The reduction of all, everywhere."""
    tensor = turn.put(turn.of(turn.rank))
    turn.call("all_reduce", tensor)
    return [("the tensor", tensor, turn.total([turn.of(r) for r in turn.all]))]


def reduce(turn: Turn) -> Held:
    """The reduction of all, at the root."""
    held: Held = []
    for root in turn.all:
        tensor = turn.put(turn.of(turn.rank, root))
        turn.call("reduce", tensor, group_dst=root)
        if turn.rank == root:
            total = turn.total([turn.of(r, root) for r in turn.all])
            held.append((f"the tensor at root {root}", tensor, total))
    return held


def reduce_scatter(turn: Turn) -> Held:
    """Each rank's part of the reduction, from lists."""
    output = turn.room()
    parts = [turn.put(turn.of(turn.rank, to)) for to in turn.all]
    turn.call("reduce_scatter", output, parts)
    total = turn.total([turn.of(r, turn.rank) for r in turn.all])
    return [("the output", output, total)]


def reduce_scatter_tensor(turn: Turn, name: str = "reduce_scatter_tensor") -> Held:
    """Each rank's part of the reduction, from one tensor."""
    output = turn.room()
    given = torch.cat([turn.of(turn.rank, to) for to in turn.all])
    inputs = turn.put(given)
    turn.call(name, output, inputs)
    total = turn.total([turn.of(r, turn.rank) for r in turn.all])
    return [("the output", output, total), ("the input", inputs, given)]


def broadcast(turn: Turn) -> Held:
    """The root's tensor, everywhere."""
    held: Held = []
    for root in turn.all:
        tensor = turn.put(turn.of(turn.rank, root))
        turn.call("broadcast", tensor, group_src=root)
        held.append((f"the tensor from root {root}", tensor, turn.of(root, root)))
    return held


def all_gather(turn: Turn) -> Held:
    """Everyone's tensor everywhere, as a list."""
    mine = turn.put(turn.of(turn.rank, 0, turn.share(0, turn.rank)))
    parts = [turn.room(turn.share(0, r)) for r in turn.all]
    turn.call("all_gather", parts, mine)
    wanted = [turn.of(r, 0, turn.share(0, r)) for r in turn.all]
    held = [(f"part {r}", part, wanted[r]) for r, part in enumerate(parts)]
    return [*held, ("the input", mine, wanted[turn.rank])]


def all_gather_into_tensor(turn: Turn, name: str = "all_gather_into_tensor") -> Held:
    """Everyone's tensor everywhere, as one tensor."""
    mine, output = turn.put(turn.of(turn.rank)), turn.room(turn.count * turn.size)
    turn.call(name, output, mine)
    whole = torch.cat([turn.of(r) for r in turn.all])
    return [("the output", output, whole), ("the input", mine, turn.of(turn.rank))]


def gather(turn: Turn) -> Held:
    """Everyone's tensor at the root."""
    held: Held = []
    for root in turn.all:
        mine = turn.put(turn.of(turn.rank, root))
        parts = [turn.room() for _ in turn.all] if turn.rank == root else None
        turn.call("gather", mine, parts, group_dst=root)
        for r, part in enumerate(parts or []):
            held.append((f"part {r} at root {root}", part, turn.of(r, root)))
        held.append(("the input", mine, turn.of(turn.rank, root)))
    return held


def scatter(turn: Turn) -> Held:
    """A part of the root's list for everyone."""
    held: Held = []
    for root in turn.all:
        output = turn.room()
        parts = [turn.put(turn.of(root, r)) for r in turn.all] if turn.rank == root else None
        turn.call("scatter", output, parts, group_src=root)
        held.append((f"the output from root {root}", output, turn.of(root, turn.rank)))
    return held


def all_to_all(turn: Turn) -> Held:
    """From each to each, as lists."""
    given = [turn.of(turn.rank, to, turn.share(turn.rank, to)) for to in turn.all]
    inputs = [turn.put(tensor) for tensor in given]
    outputs = [turn.room(turn.share(r, turn.rank)) for r in turn.all]
    turn.call("all_to_all", outputs, inputs)
    wanted = [turn.of(r, turn.rank, turn.share(r, turn.rank)) for r in turn.all]
    held = [(f"output {r}", output, wanted[r]) for r, output in enumerate(outputs)]
    return held + [(f"input {r}", tensor, given[r]) for r, tensor in enumerate(inputs)]


def all_to_all_single(turn: Turn) -> Held:
    """From each to each, as one tensor."""
    gives = [turn.share(turn.rank, to) for to in turn.all]
    takes = [turn.share(r, turn.rank) for r in turn.all]
    given = torch.cat([turn.of(turn.rank, to, gives[to]) for to in turn.all])
    inputs, output = turn.put(given), turn.room(sum(takes))
    splits = () if turn.shares == "even" else (takes, gives)
    turn.call("all_to_all_single", output, inputs, *splits)
    wanted = torch.cat([turn.of(r, turn.rank, takes[r]) for r in turn.all])
    return [("the output", output, wanted), ("the input", inputs, given)]


def send(turn: Turn) -> Held:
    """To the next rank, from the one before."""
    if turn.size == 1:
        return []
    before, after = (turn.rank - 1) % turn.size, (turn.rank + 1) % turn.size
    mine, output = turn.put(turn.of(turn.rank)), turn.room()

    def give() -> None:
        dist.send(mine, group_dst=after, group=turn.group)

    def take() -> None:
        dist.recv(output, group_src=before, group=turn.group)

    # One of two neighbours takes first: a send may wait for its receiver.
    for act in (give, take) if turn.rank % 2 == 0 else (take, give):
        act()
    return [
        ("what was received", output, turn.of(before)),
        ("what was sent", mine, turn.of(turn.rank)),
    ]


def all_gather_single(turn: Turn) -> Held:
    """As ``all_gather_into_tensor``, by its name since PyTorch 2.13."""
    return all_gather_into_tensor(turn, "all_gather_single")


def reduce_scatter_single(turn: Turn) -> Held:
    """As ``reduce_scatter_tensor``, by its name since PyTorch 2.13."""
    return reduce_scatter_tensor(turn, "reduce_scatter_single")


REDUCING: dict[str, Callable[[Turn], Held]] = {
    move.__name__: move
    for move in (all_reduce, reduce, reduce_scatter, reduce_scatter_tensor, reduce_scatter_single)
}
MOVING: dict[str, Callable[[Turn], Held]] = {
    move.__name__: move
    for move in (
        broadcast, all_gather, all_gather_into_tensor, all_gather_single, gather, scatter,
        all_to_all, all_to_all_single, send,
    )
}  # fmt: skip
