"""``Device.memory`` is a limit: the weights that a target's nodes use must fit into it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch.export import ExportedProgram

from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Assignment, TargetInfo
from hardpoint.planning.graph import compute_nodes
from hardpoint.program.program import held_tensors
from hardpoint.testing.check import check, expect
from hardpoint.testing.partitioner.asking import (
    ask,
    first_objective,
    must_refuse,
    opened,
    question,
)
from hardpoint.testing.partitioner.programs import graph, layers
from hardpoint.testing.partitioner.targets import drawn, target
from hardpoint.testing.subject import Subject


class Limits:
    """Targets with little memory."""

    @check("assigns")
    def test_memory_limits_are_kept(self, subject: Subject, figures: dict[str, Any]) -> None:
        """The weights of a target's nodes, each counted once, fit into its Device.memory."""
        partitioner, objective = opened(subject), first_objective(subject)
        for program in (layers(), graph(0), graph(2)):
            exported = program.exported
            total = sum(_weights(exported, [n.name for n in compute_nodes(exported)]).values())
            largest = max(max(w.values(), default=0) for w in _by_node(exported).values())
            for shares in ((0.5, None), (0.4, 0.4, None), (0.0, None), (1.0, None)):
                targets = [
                    target(exported, name, memory=None if share is None else int(total * share))
                    for name, share in zip(("npu", "gpu", "cpu"), shares, strict=False)
                ]
                answer = ask(partitioner, program, targets, objective)
                _expect_kept(exported, targets, answer, question(program, targets, objective))
            some = drawn(exported, 0)
            limited = [_limited(some[0], largest), _limited(some[1], 2 * largest), some[2]]
            answer = ask(partitioner, program, limited, objective)
            _expect_kept(exported, limited, answer, question(program, limited, objective))
            figures[program.name] = {"weight_bytes": total}

    @check("assigns")
    def test_a_weight_is_counted_once(self, subject: Subject) -> None:
        """A target with room for every weight once takes all, though two layers share one."""
        partitioner, objective = opened(subject), first_objective(subject)
        exported = layers().exported
        total = sum(_weights(exported, [n.name for n in compute_nodes(exported)]).values())
        ask(partitioner, layers(), [target(exported, "npu", memory=total)], objective)

    @check("assigns")
    def test_too_little_memory_is_an_error_with_figures(self, subject: Subject) -> None:
        """Where the weights fit nowhere, a PlanError says which target has how much."""
        partitioner, objective = opened(subject), first_objective(subject)
        exported = layers().exported
        total = sum(_weights(exported, [n.name for n in compute_nodes(exported)]).values())
        for names in (("npu",), ("npu", "gpu")):
            room = total // (len(names) + 1)
            targets = [target(exported, name, memory=room) for name in names]
            error = must_refuse(partitioner, layers(), targets, objective)
            text = str(error)
            expect(
                names[0] in text and "memory" in text and len(re.findall(r"\d[\d.,]*", text)) >= 2,
                f"its PlanError does not say which target's memory is too small, with how much is "
                f"needed and how much is there: {error}",
            )


def _limited(info: TargetInfo, memory: int) -> TargetInfo:
    device = type(info.device)(info.device.id, info.device.name, memory=memory)
    return TargetInfo(info.target, device, info.support)


def _by_node(program: ExportedProgram) -> Mapping[str, Mapping[int, int]]:
    """Node -> the address and bytes of every weight (parameter, buffer, constant) it uses."""
    held = held_tensors(program)
    return {
        node.name: {
            held[used.name].data_ptr(): held[used.name].nbytes
            for used in node.all_input_nodes
            if used.name in held
        }
        for node in compute_nodes(program)
    }


def _weights(program: ExportedProgram, names: Sequence[str]) -> Mapping[int, int]:
    """The weights that these nodes use: address -> bytes; tied ones are one."""
    by_node = _by_node(program)
    return {address: size for name in names for address, size in by_node[name].items()}


def _expect_kept(
    program: ExportedProgram, targets: Sequence[TargetInfo], answer: Assignment, what: str
) -> None:
    placed: dict[Target, list[str]] = {}
    for name, at in answer.targets.items():
        placed.setdefault(at, []).append(name)
    for info in targets:
        used = sum(_weights(program, placed.get(info.target, [])).values())
        room = info.device.memory
        expect(
            room is None or used <= room,
            f"{what}: {info.target} gets nodes that use {used} bytes of weights, and has {room}",
        )
