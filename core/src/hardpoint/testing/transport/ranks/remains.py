"""Parts about what groups leave in a process."""

from __future__ import annotations

import gc
import os
from collections import Counter

import torch
import torch.distributed as dist

from hardpoint.testing.transport.ranks.judge import every_move, usual
from hardpoint.testing.transport.ranks.scene import PATIENCE, Scene
from hardpoint.testing.transport.ranks.values import dtype_named
from hardpoint.testing.transport.traces import (
    describe_process,
    descriptors,
    processes_of,
    resident,
    settled,
    shared_memory,
    threads,
)

_ROUNDS = 4
_MEBIBYTE = 1 << 20


def of_groups(scene: Scene) -> None:
    """Groups made, used and destroyed again and again: nothing more is there each time."""
    for _ in range(2):  # what is made once for all is no leak
        _round(scene)
    before = _present(scene)
    for _ in range(_ROUNDS):
        _round(scene)
    scene.at("looking for what groups left")
    gone, after = settled(lambda: _present(scene), lambda now: not _grown(before, now))
    if not gone:
        for kind, names in _grown(before, after).items():
            scene.wrong(f"{_ROUNDS} groups made, used and destroyed leave {kind}: {names}")


def _round(scene: Scene) -> None:
    with scene.group() as group:
        for case in every_move(scene, 1000):
            scene.at(f"{case}, before its group is destroyed")
            case.run(scene.rank, scene.size, group, scene.device)
        scene.at("a sub-group, before it is destroyed")
        pair = dist.new_group([0, 1], timeout=PATIENCE)
        if scene.rank < 2 and scene.declares("all_reduce"):
            dist.all_reduce(_ones(scene, 10), group=pair)
    del group, pair
    gc.collect()
    scene.meet(f"left-{next(scene.counter)}")


def _present(scene: Scene) -> dict[str, Counter[str]]:
    gc.collect()
    return {
        "threads": Counter(threads()),
        "open descriptors": Counter(descriptors()),
        "processes": Counter(describe_process(pid) for pid in processes_of(os.getpid())),
        "temporary files": Counter(file.name for file in (scene.folder / "tmp").rglob("*")),
        "shared memory": Counter(shared_memory(processes_of(os.getppid()))),
    }


def _grown(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> dict[str, str]:
    found = {}
    for kind, names in after.items():
        extra = names - before[kind]
        if names.total() > before[kind].total() and extra:
            found[kind] = ", ".join(f"{count} x {name}" for name, count in extra.items())[:300]
    return found


def of_collectives(scene: Scene) -> None:
    """Memory after many all-reduces of a mebibyte."""
    with scene.group():
        scene.at("many all_reduce")
        for _ in range(30):
            dist.all_reduce(_ones(scene, _MEBIBYTE // 4))
        before = resident()
        for _ in range(120):
            dist.all_reduce(_ones(scene, _MEBIBYTE // 4))
        gc.collect()
        grown = resident() - before
        scene.note(grown_mebibytes=round(grown / _MEBIBYTE, 1))
        if grown > 60 * _MEBIBYTE:
            scene.wrong(
                f"120 all_reduce of 1 MiB each, whose tensors are gone, leave"
                f" {grown // _MEBIBYTE} MiB more in this process"
            )


def _ones(scene: Scene, count: int) -> torch.Tensor:
    return torch.ones(count, dtype=dtype_named(usual(scene)), device=scene.device)
