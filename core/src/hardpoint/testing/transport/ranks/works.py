"""Parts about work that is not waited for at once."""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from hardpoint.testing.transport.ranks.judge import usual
from hardpoint.testing.transport.ranks.scene import Scene
from hardpoint.testing.transport.ranks.values import dtype_named

_SIZES = (1, 50_000, 3, 1_000_000, 700, 0, 200_000, 5)


def in_flight(scene: Scene) -> None:
    """Eight all-reduces under way at once, waited for in another order on each rank."""
    with scene.group():
        scene.at("several all_reduce(async_op=True) at once")
        tensors = [_ones(scene, n) * (scene.rank + 1) * (k + 1) for k, n in enumerate(_SIZES)]
        works = [_begun(tensor) for tensor in tensors]
        for work in works if scene.rank == 0 else reversed(works):
            work.wait()
        scene.settle()
        for k, (work, tensor) in enumerate(zip(works, tensors, strict=True)):
            total = (k + 1) * sum(r + 1 for r in range(scene.size))
            if not bool((tensor == total).all()):
                scene.wrong(
                    f"of {len(works)} all_reduce in flight, number {k + 1} ({_SIZES[k]} elements)"
                    f" is not {total} everywhere after wait()"
                )
            if not work.is_completed():
                scene.wrong("is_completed() is false after wait() has returned")


def not_before(scene: Scene) -> None:
    """Nothing is complete before the other rank has taken part."""
    with scene.group():
        tensor = _ones(scene, 1000)
        dist.all_reduce(tensor)  # connected from here on
        if scene.rank == 1:
            scene.await_flag("asked")
        scene.at("all_reduce(async_op=True) that the other rank has not begun")
        tensor = _ones(scene, 1000)
        work = _begun(tensor)
        if scene.rank == 0:
            time.sleep(0.1)  # for who completes it by a clock; nothing right depends on it
            early = work.is_completed()
            scene.raise_flag("asked")
            if early:
                scene.wrong(
                    "is_completed() of an all_reduce is true though the other rank has not called"
                    " it yet"
                )
        work.wait()
        scene.settle()
        if not bool((tensor == scene.size).all()):
            scene.wrong("wait() returned before the all_reduce was done")
        if not work.is_completed():
            scene.wrong("is_completed() is false after wait() has returned")


def futures(scene: Scene) -> None:
    """The work's future, as DDP uses it."""
    with scene.group():
        scene.at("all_reduce(async_op=True).get_future()")
        tensor = _ones(scene, 1000)
        work = _begun(tensor)
        future = work.get_future()
        value = future.then(_whole).wait()
        if not isinstance(value, torch.Tensor) or not bool((value == scene.size).all()):
            scene.wrong(
                "work.get_future() gives no reduced tensor, or a list of one, to then(): "
                f"{type(value).__name__}"
            )
        work.wait()


def _whole(future: torch.futures.Future[list[torch.Tensor]]) -> torch.Tensor:
    value = future.value()
    return value[0] if isinstance(value, list) else value


def barriers(scene: Scene) -> None:
    """No rank leaves a barrier before every rank has come to it."""
    with scene.group():
        for index in range(6):
            late = index % scene.size
            if scene.rank == late:
                # The others are well inside by now, if it lets them wait at all.
                for other in range(scene.size):
                    if other != late:
                        scene.await_flag(f"near-{index}-{other}")
                time.sleep(0.05)
                scene.raise_flag(f"came-{index}")
            else:
                scene.raise_flag(f"near-{index}-{scene.rank}")
            scene.at(f"barrier {index}")
            work = dist.barrier(async_op=index % 2 == 1)
            if work is not None:
                work.wait()
            scene.settle()
            if not (scene.folder / f"came-{index}.flag").exists():
                scene.wrong(f"barrier() let this rank go before rank {late} had come")


def _ones(scene: Scene, count: int) -> torch.Tensor:
    return torch.ones(count, dtype=dtype_named(usual(scene)), device=scene.device)


def _begun(tensor: torch.Tensor) -> dist.Work:
    work: dist.Work | None = dist.all_reduce(tensor, async_op=True)
    if work is None:
        raise TypeError("all_reduce(async_op=True) returned None, not a torch.distributed.Work")
    return work
