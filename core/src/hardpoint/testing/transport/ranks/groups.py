"""Parts about several groups, and about how groups are made."""

from __future__ import annotations

import time
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FileStore
from torch.distributed.device_mesh import init_device_mesh

import hardpoint as hp
from hardpoint.bridges.c10d import register
from hardpoint.testing.transport.ranks.judge import every_move, usual
from hardpoint.testing.transport.ranks.scene import PATIENCE, Scene
from hardpoint.testing.transport.ranks.values import dtype_named


def subgroups(scene: Scene) -> None:
    """Groups of some ranks: alone, a pair, the pair turned around, all."""
    with scene.group():
        last = scene.size - 1
        for members in ([0], [last], [0, last], [last, 0], list(range(scene.size))):
            what = f"new_group({members}, sort_ranks=False)"
            scene.at(what)
            group = dist.new_group(members, timeout=PATIENCE, sort_ranks=False)
            inside = scene.rank in members
            if inside != (group is not dist.GroupMember.NON_GROUP_MEMBER):
                scene.wrong(f"{what}: this rank is {'not ' if inside else ''}a member of it")
            elif inside:
                _use(scene, group, members, what)
        scene.at("all_reduce of the default group after sub-groups")
        if (total := _sum(scene, None, scene.rank + 1)) != sum(range(scene.size + 1)):
            scene.wrong(f"all_reduce of the default group after sub-groups gives {total}")


def _use(scene: Scene, group: dist.ProcessGroup, members: list[int], what: str) -> None:
    mine = members.index(scene.rank)
    found = (dist.get_rank(group), dist.get_world_size(group))
    if found != (mine, len(members)):
        scene.wrong(f"{what}: rank and size are {found}, not {(mine, len(members))}")
        return
    for case in every_move(scene, 3):
        scene.at(f"{case} in {what}")
        held = case.run(mine, len(members), group, scene.device)
        for message in case.wrong(held):
            scene.wrong(f"in {what}: {message}")


def at_once(scene: Scene) -> None:
    """Four groups of the same ranks, with work of each under way."""
    with scene.group():
        groups = [dist.new_group(timeout=PATIENCE) for _ in range(4)]
        dtype = dtype_named(usual(scene))
        scene.at("all_reduce in four groups at once")
        tensors = [
            torch.full((30_000 * (8 - k) + 1,), (scene.rank + 1) * (k + 1), dtype=dtype)
            .to(scene.device)
            for k in range(8)
        ]  # fmt: skip
        works = [
            dist.all_reduce(tensor, group=groups[k % 4], async_op=True)
            for k, tensor in enumerate(tensors)
        ]
        for work in reversed(works):
            if work is not None:
                work.wait()
        for k, tensor in enumerate(tensors):
            want = (k + 1) * sum(range(scene.size + 1))
            if not bool((tensor == want).all()):
                scene.wrong(
                    f"all_reduce number {k // 4 + 1} of group {k % 4}, with four groups busy:"
                    f" {tensor[0].item()}, expected {want}"
                )
        scene.at("destroying one of several groups")
        dist.destroy_process_group(groups[0])
        if (total := _sum(scene, groups[1], 1)) != scene.size:
            scene.wrong(f"all_reduce of a group gives {total} after another group was destroyed")


def entrances(scene: Scene) -> None:
    """PyTorch's own entrance, hardpoint's, a mesh's, and the contract's own method."""
    registry = scene.registry
    scene.at("hardpoint.bridges.c10d.register")
    register(registry, [scene.request.provider])
    scene.at(f"torch.distributed.init_process_group({scene.backend!r})")
    dist.init_process_group(
        f"{scene.device.type}:{scene.backend}",
        init_method=f"file://{scene.folder}/torch.store",
        rank=scene.rank,
        world_size=scene.size,
        timeout=PATIENCE,
        pg_options=dict(scene.request.config),
    )
    _expect_all(scene, dist.group.WORLD, "torch.distributed.init_process_group")
    scene.leave()
    with scene.group() as group:
        _expect_all(scene, group, "hardpoint.init_process_group")
        named = dist.new_group(backend=scene.backend, timeout=PATIENCE)
        _expect_all(scene, named, f"new_group(backend={scene.backend!r})")
        mesh = init_device_mesh(scene.device.type, (scene.size,))
        _expect_all(scene, mesh.get_group(), "init_device_mesh")
    scene.at("Transport.process_group")
    transport = registry.open("transport", scene.request.provider, scene.request.config)
    store = FileStore(f"{scene.folder}/own.store", scene.size)
    made = transport.process_group(store, scene.rank, scene.size, PATIENCE)
    if not isinstance(made, dist.ProcessGroup):
        scene.wrong(f"process_group() returned a {type(made).__name__}, not a ProcessGroup")
    elif (made.rank(), made.size()) != (scene.rank, scene.size):
        scene.wrong(f"process_group() made rank {made.rank()} of {made.size()}")


def again(scene: Scene) -> None:
    """A group made, used and destroyed, and made again at the same place."""
    # When the last FileStore of a file goes, PyTorch removes it, also under one that was opened in
    # that moment; the rank with that one would wait for ever. This one does not go.
    kept = FileStore(f"{scene.folder}/same.store")
    for turn in range(1, 5):
        scene.join(at="same")
        scene.at(f"all_reduce of the default group, made for the {turn}. time")
        if (total := _sum(scene, None, turn)) != turn * scene.size:
            scene.wrong(f"the {turn}. group that was made in one process reduces to {total}")
        scene.leave()
    del kept


def absent(scene: Scene) -> None:
    """The last rank never comes."""
    limit, slack = scene.arguments["timeout"], scene.arguments["slack"]
    if scene.rank == scene.size - 1:
        for rank in range(scene.size - 1):
            scene.await_flag(f"gave-up-{rank}")
        return
    began = time.monotonic()
    try:
        scene.join(timedelta(seconds=limit))
    except hp.TransportError as error:
        took = time.monotonic() - began
        scene.note(error=error.what, seconds=round(took, 2))
        if took > limit + slack:
            scene.wrong(f"the error came after {took:.1f} s; the timeout is {limit:g} s")
    else:
        scene.wrong("a group was made though one of its ranks never came")
    scene.raise_flag(f"gave-up-{scene.rank}")


def _expect_all(scene: Scene, group: dist.ProcessGroup | None, how: str) -> None:
    scene.at(f"all_reduce of a group made by {how}")
    if (total := _sum(scene, group, scene.rank + 1)) != sum(range(scene.size + 1)):
        scene.wrong(f"all_reduce of a group made by {how} gives {total}")


def _sum(scene: Scene, group: dist.ProcessGroup | None, value: int) -> float:
    tensor = torch.full((7,), value, dtype=dtype_named(usual(scene)), device=scene.device)
    dist.all_reduce(tensor, group=group)
    low, high = tensor.min().item(), tensor.max().item()
    return low if low == high else float("nan")
