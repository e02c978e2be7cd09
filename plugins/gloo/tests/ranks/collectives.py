"""One rank of the test of every collective; prints one JSON line of verdicts.

Every case gives what it got and what it should have got by arithmetic. It runs on a group made by
``hp.init_process_group``, on one made by ``torch.distributed.init_process_group``, and on PyTorch's
own gloo: all must agree, down to the refusals.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch.distributed.distributed_c10d import _coalescing_manager

Pairs = list[tuple[Any, Any]]


@dataclass(frozen=True)
class Ranks:
    """The group under test, seen from one of its ranks."""

    rank: int
    size: int
    group: dist.ProcessGroup

    @property
    def next(self) -> int:
        return (self.rank + 1) % self.size

    @property
    def previous(self) -> int:
        return (self.rank - 1) % self.size

    @property
    def all(self) -> range:
        return range(self.size)


def data(rank: int, count: int = 6, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What ``rank`` contributes; small whole numbers, exact in every dtype."""
    values = torch.arange(count) % 3 + 1 + rank
    return (values % 2 == 0) if dtype == torch.bool else values.to(dtype)


CASES: dict[str, Callable[[Ranks], Pairs]] = {}


def case(function: Callable[[Ranks], Pairs]) -> Callable[[Ranks], Pairs]:
    CASES[function.__name__] = function
    return function


FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.uint8, torch.int32, torch.int64)
FOLDS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "PRODUCT": torch.mul,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
    "BAND": torch.bitwise_and,
    "BOR": torch.bitwise_or,
    "BXOR": torch.bitwise_xor,
}


def fold(op: str, parts: list[torch.Tensor]) -> torch.Tensor:
    result = parts[0]
    for part in parts[1:]:
        result = FOLDS[op](result, part)
    return result


def all_reduce(op: str, dtype: torch.dtype, ranks: Ranks) -> Pairs:
    tensor = data(ranks.rank, dtype=dtype)
    dist.all_reduce(tensor, getattr(dist.ReduceOp, op), group=ranks.group)
    if op == "AVG":
        return [(tensor, fold("SUM", [data(r, dtype=dtype) for r in ranks.all]) / ranks.size)]
    return [(tensor, fold(op, [data(r, dtype=dtype) for r in ranks.all]))]


for _op, _dtypes in {
    **dict.fromkeys(("SUM", "PRODUCT", "MIN", "MAX"), (*FLOATS, *INTEGERS)),
    **dict.fromkeys(("BAND", "BOR", "BXOR"), INTEGERS),
    "AVG": FLOATS,
}.items():
    for _dtype in _dtypes:
        CASES[f"all_reduce_{_op}_{str(_dtype)[6:]}"] = partial(all_reduce, _op, _dtype)
CASES["all_reduce_SUM_complex64"] = partial(all_reduce, "SUM", torch.complex64)
CASES["all_reduce_MAX_bool"] = partial(all_reduce, "MAX", torch.bool)


@case
def all_reduce_async(ranks: Ranks) -> Pairs:
    tensors = [data(ranks.rank) * k for k in range(1, 5)]
    works = [dist.all_reduce(t, group=ranks.group, async_op=True) for t in tensors]
    for work in works:
        work.wait()
    total = fold("SUM", [data(r) for r in ranks.all])
    return [(t, total * k) for k, t in enumerate(tensors, 1)]


@case
def all_reduce_future(ranks: Ranks) -> Pairs:
    tensor = data(ranks.rank)
    work = dist.all_reduce(tensor, group=ranks.group, async_op=True)
    doubled = work.get_future().then(lambda done: done.value()[0] * 2).wait()
    return [(doubled, fold("SUM", [data(r) for r in ranks.all]) * 2)]


@case
def all_reduce_of_nothing(ranks: Ranks) -> Pairs:
    tensor = torch.empty(0)
    dist.all_reduce(tensor, group=ranks.group)
    return [(tensor, torch.empty(0))]


@case
def all_reduce_large(ranks: Ranks) -> Pairs:
    tensor = torch.full((1_000_003,), float(ranks.rank + 1))
    dist.all_reduce(tensor, group=ranks.group)
    return [(tensor, torch.full((1_000_003,), float(sum(r + 1 for r in ranks.all))))]


@case
def all_reduce_coalesced(ranks: Ranks) -> Pairs:
    tensors = [data(ranks.rank, count) for count in (1, 5, 9)]
    dist.all_reduce_coalesced(tensors, group=ranks.group)
    return [(t, fold("SUM", [data(r, t.numel()) for r in ranks.all])) for t in tensors]


@case
def all_reduce_in_coalescing_manager(ranks: Ranks) -> Pairs:
    tensors = [data(ranks.rank, count) for count in (2, 3)]
    with _coalescing_manager(ranks.group):
        for tensor in tensors:
            dist.all_reduce(tensor, group=ranks.group)
    return [(t, fold("SUM", [data(r, t.numel()) for r in ranks.all])) for t in tensors]


@case
def all_gather_in_coalescing_manager(ranks: Ranks) -> Pairs:
    outputs = [torch.zeros(count * ranks.size) for count in (2, 3)]
    with _coalescing_manager(ranks.group):
        for output in outputs:
            part = data(ranks.rank, output.numel() // ranks.size)
            dist.all_gather_into_tensor(output, part, group=ranks.group)
    return [(o, torch.cat([data(r, o.numel() // ranks.size) for r in ranks.all])) for o in outputs]


@case
def broadcast(ranks: Ranks) -> Pairs:
    pairs = []
    for root in ranks.all:
        tensor = data(ranks.rank)
        dist.broadcast(tensor, root, group=ranks.group)
        pairs.append((tensor, data(root)))
    return pairs


@case
def broadcast_of_a_transposed_tensor(ranks: Ranks) -> Pairs:
    tensor = data(ranks.rank).view(2, 3).t()
    dist.broadcast(tensor, 0, group=ranks.group)
    return [(tensor, data(0).view(2, 3).t())]


@case
def reduce(ranks: Ranks) -> Pairs:
    pairs = []
    for root in ranks.all:
        tensor = data(ranks.rank)
        dist.reduce(tensor, root, group=ranks.group)
        if ranks.rank == root:
            pairs.append((tensor, fold("SUM", [data(r) for r in ranks.all])))
    return pairs


@case
def gather(ranks: Ranks) -> Pairs:
    parts = [torch.zeros(6) for _ in ranks.all] if ranks.rank == 0 else None
    dist.gather(data(ranks.rank), parts, 0, group=ranks.group)
    return [(part, data(r)) for r, part in enumerate(parts or [])]


@case
def scatter(ranks: Ranks) -> Pairs:
    output = torch.zeros(6)
    parts = [data(r) for r in ranks.all] if ranks.rank == 0 else None
    dist.scatter(output, parts, 0, group=ranks.group)
    return [(output, data(ranks.rank))]


@case
def all_gather(ranks: Ranks) -> Pairs:
    parts = [torch.zeros(6) for _ in ranks.all]
    dist.all_gather(parts, data(ranks.rank), group=ranks.group)
    return [(part, data(r)) for r, part in enumerate(parts)]


@case
def all_gather_of_nothing(ranks: Ranks) -> Pairs:
    parts = [torch.zeros(0) for _ in ranks.all]
    dist.all_gather(parts, torch.zeros(0), group=ranks.group)
    return [(part, torch.zeros(0)) for part in parts]


@case
def all_gather_of_uneven_sizes(ranks: Ranks) -> Pairs:
    parts = [torch.zeros(r + 1) for r in ranks.all]
    dist.all_gather(parts, data(ranks.rank, ranks.rank + 1), group=ranks.group)
    return [(part, data(r, r + 1)) for r, part in enumerate(parts)]


def all_gather_tensor(name: str, ranks: Ranks) -> Pairs:
    output = torch.zeros(6 * ranks.size)
    getattr(dist, name)(output, data(ranks.rank), group=ranks.group)
    return [(output, torch.cat([data(r) for r in ranks.all]))]


def reduce_scatter_tensor(name: str, ranks: Ranks) -> Pairs:
    output = torch.zeros(6)
    parts = torch.cat([data(ranks.rank) * (k + 1) for k in ranks.all])
    getattr(dist, name)(output, parts, group=ranks.group)
    return [(output, fold("SUM", [data(r) for r in ranks.all]) * (ranks.rank + 1))]


@case
def reduce_scatter(ranks: Ranks) -> Pairs:
    output = torch.zeros(6)
    parts = [data(ranks.rank) * (k + 1) for k in ranks.all]
    dist.reduce_scatter(output, parts, group=ranks.group)
    return [(output, fold("SUM", [data(r) for r in ranks.all]) * (ranks.rank + 1))]


# torch 2.13 renamed them, and keeps the old names.
for _name in ("all_gather_into_tensor", "all_gather_single"):
    CASES[_name] = partial(all_gather_tensor, _name)
for _name in ("reduce_scatter_tensor", "reduce_scatter_single"):
    CASES[_name] = partial(reduce_scatter_tensor, _name)


@case
def all_to_all(ranks: Ranks) -> Pairs:
    outputs = [torch.zeros(3) for _ in ranks.all]
    inputs = [data(ranks.rank, 3) * (to + 1) for to in ranks.all]
    dist.all_to_all(outputs, inputs, group=ranks.group)
    return [(o, data(r, 3) * (ranks.rank + 1)) for r, o in enumerate(outputs)]


@case
def all_to_all_single(ranks: Ranks) -> Pairs:
    output = torch.zeros(2 * ranks.size)
    dist.all_to_all_single(output, data(ranks.rank, 2 * ranks.size), group=ranks.group)
    mine = slice(2 * ranks.rank, 2 * ranks.rank + 2)
    return [(output, torch.cat([data(r, 2 * ranks.size)[mine] for r in ranks.all]))]


def exchange(share: Callable[[int, int], int], ranks: Ranks) -> Pairs:
    """Rank a sends ``share(a, b)`` elements to rank b."""
    sends = [share(ranks.rank, to) for to in ranks.all]
    receives = [share(origin, ranks.rank) for origin in ranks.all]
    output = torch.zeros(sum(receives))
    dist.all_to_all_single(output, data(ranks.rank, sum(sends)), receives, sends, group=ranks.group)
    want = []
    for origin in ranks.all:
        shares = [share(origin, to) for to in ranks.all]
        want.append(data(origin, sum(shares)).split(shares)[ranks.rank])
    return [(output, torch.cat(want))]


CASES["all_to_all_single_uneven"] = partial(exchange, lambda a, b: a + 2 * b + 1)
CASES["all_to_all_single_with_empty_shares"] = partial(exchange, lambda a, b: 3 if a < b else 0)
CASES["all_to_all_single_of_nothing"] = partial(exchange, lambda a, b: 0)


@case
def send_and_recv(ranks: Ranks) -> Pairs:
    tensor = data(0) if ranks.rank == 0 else torch.zeros(6)
    if ranks.rank == 0:
        for to in ranks.all[1:]:
            dist.send(tensor, to, group=ranks.group, tag=7)
    else:
        dist.recv(tensor, 0, group=ranks.group, tag=7)
    return [(tensor, data(0))]


@case
def recv_from_anyone(ranks: Ranks) -> Pairs:
    if ranks.rank != 0:
        dist.send(data(ranks.rank), 0, group=ranks.group)
        return []
    pairs = []
    for _ in ranks.all[1:]:
        tensor = torch.zeros(6)
        origin = dist.recv(tensor, group=ranks.group)
        pairs.append((tensor, data(origin)))
    return pairs


@case
def isend_and_irecv(ranks: Ranks) -> Pairs:
    output = torch.zeros(6)
    works = [
        dist.isend(data(ranks.rank), ranks.next, group=ranks.group),
        dist.irecv(output, ranks.previous, group=ranks.group),
    ]
    for work in works:
        work.wait()
    return [(output, data(ranks.previous))]


@case
def batch_isend_irecv(ranks: Ranks) -> Pairs:
    output = torch.zeros(6)
    works = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, data(ranks.rank), ranks.next, group=ranks.group),
            dist.P2POp(dist.irecv, output, ranks.previous, group=ranks.group),
        ]
    )
    for work in works:
        work.wait()
    return [(output, data(ranks.previous))]


@case
def barrier(ranks: Ranks) -> Pairs:
    dist.barrier(group=ranks.group)
    dist.barrier(group=ranks.group, async_op=True).wait()
    return []


@case
def object_collectives(ranks: Ranks) -> Pairs:
    mine = {"rank": ranks.rank, "text": "é" * (ranks.rank + 1)}
    every = [{"rank": r, "text": "é" * (r + 1)} for r in ranks.all]
    group = ranks.group
    everything: list[Any] = [None] * ranks.size
    dist.all_gather_object(everything, mine, group=group)
    gathered: list[Any] | None = [None] * ranks.size if ranks.rank == 0 else None
    dist.gather_object(mine, gathered, 0, group=group)
    heard = [mine]
    dist.broadcast_object_list(heard, 1, group=group)
    mail: list[Any] = [None]
    dist.scatter_object_list(mail, every if ranks.rank == 0 else None, 0, group=group)
    pairs: Pairs = [(everything, every), (heard, [every[1]]), (mail, [every[ranks.rank]])]
    return [*pairs, (gathered, every)] if ranks.rank == 0 else pairs


@case
def object_lists_from_rank_to_rank(ranks: Ranks) -> Pairs:
    letters = ["a", {"b": 2}] if ranks.rank == 0 else [None, None]
    if ranks.rank == 0:
        dist.send_object_list(letters, 1, group=ranks.group)
    elif ranks.rank == 1:
        dist.recv_object_list(letters, 0, group=ranks.group)
    else:
        return []
    return [(letters, ["a", {"b": 2}])]


@case
def functional_collectives(ranks: Ranks) -> Pairs:
    mine, group = data(ranks.rank), ranks.group
    total = fold("SUM", [data(r) for r in ranks.all])
    parts = torch.cat([mine * (k + 1) for k in ranks.all])
    wait = functional.wait_tensor
    split = [6] * ranks.size
    return [
        (wait(functional.all_reduce(mine, "sum", group)), total),
        (
            wait(functional.all_gather_tensor(mine, 0, group)),
            torch.cat([data(r) for r in ranks.all]),
        ),
        (
            wait(functional.reduce_scatter_tensor(parts, "sum", 0, group)),
            total * (ranks.rank + 1),
        ),
        (
            wait(functional.all_to_all_single(parts, split, split, group)),
            torch.cat([data(r) * (ranks.rank + 1) for r in ranks.all]),
        ),
        (wait(functional.broadcast(mine, 0, group)), data(0)),
    ]


@case
def a_mistake_in_the_arguments(ranks: Ranks) -> Pairs:
    dist.all_gather_into_tensor(torch.zeros(5), data(ranks.rank), group=ranks.group)
    return []


def outcome(function: Callable[[Ranks], Pairs], ranks: Ranks) -> tuple[Pairs, str]:
    try:
        return function(ranks), ""
    except (RuntimeError, ValueError) as error:
        return [], f"{type(error).__name__}: {str(error).splitlines()[0]}"


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


def verdicts(ranks: Ranks, stock: Ranks) -> dict[str, dict[str, Any]]:
    found = {}
    for name, function in CASES.items():
        pairs, error = outcome(function, ranks)
        reference, stock_error = outcome(function, stock)
        found[name] = {
            "checked": len(pairs),
            "wrong": [f"{got} is not {want}" for got, want in pairs if not same(got, want)],
            "unlike_stock": [
                f"{mine} is not {theirs}"
                for (mine, _), (theirs, _) in zip(pairs, reference, strict=True)
                if not same(mine, theirs)
            ],
            "error": error,
            "stock_error": stock_error,
        }
    return found


def groups(rank: int, size: int) -> dict[str, Any]:
    """Sub-groups, several groups at once, and the form that names devices."""
    total = sum(r + 1 for r in range(size))
    alone = [dist.new_group([r], backend="hp_gloo") for r in range(size)]
    mixed = dist.new_group(backend="cpu:hp_gloo")
    reverse = dist.new_group(list(reversed(range(size))), backend="hp_gloo")
    stock = dist.new_group(backend="gloo")
    tensors = [torch.full((3,), float(rank + 1)) for _ in range(4)]
    works = [
        dist.all_reduce(tensor, group=group, async_op=True)
        for tensor, group in zip(tensors, (None, mixed, reverse, stock), strict=True)
    ]
    for work in works:
        work.wait()
    single = torch.full((3,), float(rank + 1))
    dist.all_reduce(single, group=alone[rank])
    dist.destroy_process_group(mixed)
    after = torch.ones(1)
    dist.all_reduce(after, group=reverse)
    return {
        "at_once": [t.tolist() for t in tensors] == [[float(total)] * 3] * 4,
        "alone": single.tolist() == [float(rank + 1)] * 3,
        "outsider": [g is dist.GroupMember.NON_GROUP_MEMBER for g in alone]
        == [r != rank for r in range(size)],
        "backends": [dist.get_backend(g) for g in (None, reverse, stock)],
        "after_destroying_another": after.item() == size,
    }


def under_debug(folder: str, rank: int, size: int) -> dict[str, Any]:
    """PyTorch's own checking of collectives finds ranks that disagree, on our groups too."""
    dist.set_debug_level(dist.DebugLevel.DETAIL)
    dist.init_process_group("cpu:hp_gloo", f"file://{folder}/debug", rank=rank, world_size=size)
    total = torch.ones(2)
    dist.all_reduce(total)
    try:
        dist.all_reduce(torch.ones(2 + rank))
    except RuntimeError as error:
        mismatch = str(error)
    else:
        mismatch = ""
    dist.destroy_process_group()
    return {"total": total.tolist(), "mismatch": mismatch}


def main() -> None:
    import hardpoint as hp

    folder, rank, size = sys.argv[1], int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    report: dict[str, Any] = {}

    hp.init_process_group("gloo", config={"interface": "lo"})  # env://, as under torchrun
    world = dist.GroupMember.WORLD
    stock = Ranks(rank, size, dist.new_group(backend="gloo"))
    report["hp"] = verdicts(Ranks(rank, size, world), stock)
    report["groups"] = groups(rank, size)
    dist.destroy_process_group()

    dist.init_process_group("hp_gloo", f"file://{folder}/store", rank=rank, world_size=size)
    stock = Ranks(rank, size, dist.new_group(backend="gloo"))
    report["torch"] = verdicts(Ranks(rank, size, dist.GroupMember.WORLD), stock)
    dist.destroy_process_group()

    report["debug"] = under_debug(folder, rank, size)
    print(json.dumps(report))


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # of the names that torch 2.13 deprecates
    torch.set_num_threads(1)
    main()
