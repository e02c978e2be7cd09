"""Targets to choose from: with random gaps in what they support, and with little memory."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from torch.export import ExportedProgram

from hardpoint.interfaces.backend import Support
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import TargetInfo
from hardpoint.interfaces.probe import Device
from hardpoint.planning.graph import compute_nodes

_NAMES = ("npu", "gpu", "dsp", "cpu")


def target(
    program: ExportedProgram,
    name: str,
    lacks: Collection[str] = (),
    memory: int | None = None,
) -> TargetInfo:
    """A target that supports all but the nodes named, with a reason for each of those."""
    nodes = compute_nodes(program)
    good = frozenset(node.name for node in nodes if node.name not in lacks)
    refused = {n.name: f"{name} has no {n.target}" for n in nodes if n.name not in good}
    at = Target.parse(name)
    return TargetInfo(at, Device(at.device or "0", name, memory=memory), Support(good, refused))


def drawn(program: ExportedProgram, seed: int, count: int = 3) -> list[TargetInfo]:
    """``count`` targets with random gaps; every node is supported by at least one of them.

    With an even seed the last one supports all, as a CPU does; with an odd one, none need.
    """
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    nodes = compute_nodes(program)
    masks: list[set[str]] = []
    for _ in range(count):
        share = draw.choice((0.2, 0.5, 0.8, 0.95))
        masks.append({node.name for node in nodes if draw.random() < share})
    for node in nodes:
        if seed % 2 == 0:
            masks[-1].add(node.name)
        elif not any(node.name in mask for mask in masks):
            draw.choice(masks).add(node.name)
    # Other devices each time: what goes by the hash of a name shall not be right by luck.
    names = [f"{name}:{seed}" for name in (*_NAMES[: count - 1], _NAMES[-1])]
    return [
        target(program, name, lacks={node.name for node in nodes} - mask)
        for name, mask in zip(names, masks, strict=True)
    ]


def whole(targets: Sequence[TargetInfo], program: ExportedProgram) -> list[TargetInfo]:
    """Those that support all of the program."""
    names = {node.name for node in compute_nodes(program)}
    return [t for t in targets if names <= t.support.supported]
