"""Parts about messages from one rank to one other."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist

from hardpoint.errors import TransportError
from hardpoint.testing.transport.ranks.judge import usual
from hardpoint.testing.transport.ranks.scene import PATIENCE, Scene
from hardpoint.testing.transport.ranks.values import bits, difference, dtype_named

_COUNTS = (0, 1, 7, 100_000, 3)


def messages(scene: Scene) -> None:
    """In order, in both directions at once, by every way of sending."""
    with scene.group():
        me, other = scene.rank, 1 - scene.rank
        scene.at("send and recv of several sizes")
        for number, count in enumerate(_COUNTS):
            _expect(scene, _one_way(scene, number, count), f"recv number {number + 1}")
        scene.at("isend and irecv of several messages at once")
        outputs = [_message(scene, me, 9, count) for count in _COUNTS]
        gifts = [_message(scene, me, n, count) for n, count in enumerate(_COUNTS)]
        works = [dist.isend(gift, other) for gift in gifts]
        works += [dist.irecv(output, other) for output in outputs]
        for work in reversed(works):
            if work is not None:
                work.wait()
        for number, output in enumerate(outputs):
            _expect(scene, (other, number, output), f"irecv number {number + 1} of several")
        scene.at("batch_isend_irecv")
        output, gift = _message(scene, me, 9, 50), _message(scene, me, 1, 50)
        pair = [dist.P2POp(dist.isend, gift, other), dist.P2POp(dist.irecv, output, other)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()
        _expect(scene, (other, 1, output), "batch_isend_irecv")


def _one_way(scene: Scene, number: int, count: int) -> tuple[int, int, torch.Tensor]:
    tensor = _message(scene, scene.rank, number, count)
    giver = number % 2
    if scene.rank == giver:
        dist.send(tensor, 1 - giver)
    else:
        dist.recv(tensor, giver)
    return giver, number, tensor


def extras(scene: Scene) -> None:
    """What not every transport has: right, or refused. Each in a group of its own."""
    scene.join()
    refused = {}
    for name, act in {"tags": _tags, "any source": _any_source}.items():
        scene.at(f"{name} of send and recv")
        group = dist.new_group(timeout=PATIENCE)
        try:
            act(scene, group)
        except (RuntimeError, ValueError, TransportError) as error:
            refused[name] = str(error).partition("\n")[0][:200] or type(error).__name__
        scene.meet(name)
    scene.note(refused=refused)
    scene.leave()


def _tags(scene: Scene, group: dist.ProcessGroup) -> None:
    """Messages find their receivers by tag, not by order."""
    if scene.rank == 0:
        works = [dist.isend(_message(scene, 0, t, 20), 1, group=group, tag=t) for t in (5, 6)]
        for work in works:
            if work is not None:
                work.wait()
    elif scene.rank == 1:
        outputs = {tag: _message(scene, 1, 9, 20) for tag in (6, 5)}
        for tag, output in outputs.items():
            dist.recv(output, 0, group=group, tag=tag)
            _expect(scene, (0, tag, output), f"recv(tag={tag}) of messages sent as 5, 6")


def _any_source(scene: Scene, group: dist.ProcessGroup) -> None:
    """``recv`` without a source takes from anyone, and says from whom."""
    if scene.rank != 0:
        dist.send(_message(scene, scene.rank, 1, 20), 0, group=group)
        return
    sources = []
    for _ in range(scene.size - 1):
        output = _message(scene, 0, 9, 20)
        source = dist.recv(output, group=group)
        sources.append(source)
        _expect(scene, (source, 1, output), f"recv() from anyone, which said rank {source}")
    if sorted(sources) != list(range(1, scene.size)):
        scene.wrong(f"recv() from anyone said that messages came from ranks {sources}")


def objects(scene: Scene) -> None:
    """Pickled objects, as checkpoints and samplers send them."""
    with scene.group():
        every = [{"rank": r, "text": "é" * 1000 * r} for r in range(scene.size)]
        mine = every[scene.rank]

        def gathered() -> object:
            found: list[object] = [None] * scene.size
            dist.all_gather_object(found, mine)
            return found

        def heard() -> object:
            found: list[object] = [mine]
            dist.broadcast_object_list(found, scene.size - 1)
            return found

        calls: dict[str, tuple[Callable[[], object], object]] = {
            "all_gather_object": (gathered, every),
            "broadcast_object_list": (heard, [every[-1]]),
        }
        needs = {"all_gather_object": "all_gather", "broadcast_object_list": "broadcast"}
        for name, (call, want) in calls.items():
            if scene.declares(needs[name]):
                scene.at(name)
                if call() != want:
                    scene.wrong(f"{name} does not give the objects that were sent")


def _message(scene: Scene, sender: int, number: int, count: int) -> torch.Tensor:
    return bits(sender, number, count, dtype_named(usual(scene))).to(scene.device)


def _expect(scene: Scene, received: tuple[int, int, torch.Tensor], how: str) -> None:
    sender, number, tensor = received
    want = bits(sender, number, tensor.numel(), tensor.dtype)
    if wrong := difference(tensor, want, near=False):
        scene.wrong(f"{how} ({tensor.numel()} elements): {wrong}")
