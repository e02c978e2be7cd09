"""Parts about ranks that are silent, stop, or die."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist

from hardpoint.errors import TransportError
from hardpoint.testing.transport.ranks.judge import declared, usual
from hardpoint.testing.transport.ranks.scene import Scene
from hardpoint.testing.transport.ranks.values import dtype_named

_ELEMENTS = 1 << 20


# What a collective may raise.
_ERRORS = (RuntimeError, TransportError)


def silent(scene: Scene) -> None:
    """The last rank joins many groups, and calls nothing in any."""
    limit, slack = scene.arguments["timeout"], scene.arguments["slack"]
    scene.join()
    names = declared(scene, CALLS)
    groups = {name: dist.new_group(timeout=timedelta(seconds=limit)) for name in names}
    if scene.declares("barrier"):  # some connect at first use
        for group in groups.values():
            dist.barrier(group=group)
    last = scene.size - 1
    scene.meet("connected")
    if scene.rank == last:
        for rank in range(last):
            scene.await_flag(f"seen-{rank}")
        scene.leave()
        return
    begun = []
    for name, group in groups.items():
        scene.at(f"{name}, which rank {last} never calls")
        start = time.monotonic()
        try:
            begun.append((name, start, CALLS[name](scene, group)))
        except _ERRORS:
            _in_time(scene, name, start, limit + slack)
    for name, start, work in begun:
        scene.at(f"wait() of {name}, which rank {last} never calls")
        try:
            if work is not None:
                work.wait()
        except _ERRORS:
            _in_time(scene, name, start, limit + slack)
        else:
            scene.wrong(f"{name} ended without an error though rank {last} never called it")
    scene.raise_flag(f"seen-{scene.rank}")
    scene.leave()


def _in_time(scene: Scene, name: str, start: float, most: float) -> None:
    took = time.monotonic() - start
    if took > most:
        scene.wrong(f"{name} gave its error after {took:.1f} s")


def struck(scene: Scene) -> None:
    """The last rank is killed or stopped while an all-reduce is under way."""
    limit, slack = scene.arguments["timeout"], scene.arguments["slack"]
    last = scene.size - 1
    scene.join()
    group = dist.new_group(timeout=timedelta(seconds=limit))
    tensor = _tensor(scene, _ELEMENTS)
    for _ in range(3):
        dist.all_reduce(tensor.fill_(1), group=group)
    scene.meet("warm")
    if scene.rank == last:
        dist.all_reduce(tensor, group=group, async_op=True)
        scene.raise_flag("struck")
        os.kill(os.getpid(), getattr(signal, scene.arguments["signal"]))
        return
    error = ""
    for attempt in range(3):  # the blow may come just after the first is done
        scene.at(f"all_reduce number {attempt + 1} around the blow to rank {last}")
        error = error or _error_of_all_reduce(tensor, group)
    took = time.monotonic() - scene.await_flag("struck")
    if not error:
        scene.wrong(f"all_reduce goes on without an error though rank {last} is gone")
    elif took > limit + slack:
        scene.wrong(f"the error came {took:.1f} s after the blow; the timeout is {limit:g} s")
    scene.note(error=error, seconds=round(took, 2))
    scene.at("another all_reduce after the error")
    if not _error_of_all_reduce(tensor, group):
        scene.wrong("another all_reduce after the error ends well, without that rank")
    scene.leave()


def _error_of_all_reduce(tensor: torch.Tensor, group: dist.ProcessGroup) -> str:
    try:
        dist.all_reduce(tensor, group=group)
    except _ERRORS as error:
        return str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return ""


def _tensor(scene: Scene, count: int = 64) -> torch.Tensor:
    return torch.ones(count, dtype=dtype_named(usual(scene)), device=scene.device)


Call = Callable[[Scene, dist.ProcessGroup], "dist.Work | None"]

# Each so that it cannot end without the last rank.
CALLS: dict[str, Call] = {
    "all_reduce": lambda s, g: dist.all_reduce(_tensor(s), group=g, async_op=True),
    "broadcast": lambda s, g: dist.broadcast(_tensor(s), s.size - 1, group=g, async_op=True),
    "reduce": lambda s, g: dist.reduce(_tensor(s), 0, group=g, async_op=True),
    "all_gather": lambda s, g: dist.all_gather(
        [_tensor(s) for _ in range(s.size)], _tensor(s), group=g, async_op=True
    ),
    "all_gather_into_tensor": lambda s, g: dist.all_gather_into_tensor(
        _tensor(s, 64 * s.size), _tensor(s), group=g, async_op=True
    ),
    "gather": lambda s, g: dist.gather(
        _tensor(s), [_tensor(s) for _ in range(s.size)], 0, group=g, async_op=True
    ),
    "scatter": lambda s, g: dist.scatter(_tensor(s), None, s.size - 1, group=g, async_op=True),
    "reduce_scatter": lambda s, g: dist.reduce_scatter(
        _tensor(s), [_tensor(s) for _ in range(s.size)], group=g, async_op=True
    ),
    "reduce_scatter_tensor": lambda s, g: dist.reduce_scatter_tensor(
        _tensor(s), _tensor(s, 64 * s.size), group=g, async_op=True
    ),
    "all_to_all": lambda s, g: dist.all_to_all(
        [_tensor(s) for _ in range(s.size)], [_tensor(s) for _ in range(s.size)],
        group=g, async_op=True,
    ),
    "all_to_all_single": lambda s, g: dist.all_to_all_single(
        _tensor(s, 64 * s.size), _tensor(s, 64 * s.size), group=g, async_op=True
    ),
    "barrier": lambda s, g: dist.barrier(group=g, async_op=True),
    "recv": lambda s, g: dist.irecv(_tensor(s), s.size - 1, group=g),
}  # fmt: skip
