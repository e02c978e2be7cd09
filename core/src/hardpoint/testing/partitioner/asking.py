"""Ask a partitioner, and hold its answer to the contract."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch.export import ExportedProgram

from hardpoint.errors import ContractViolation, HardpointError, PlanError
from hardpoint.interfaces.partitioner import (
    Assignment,
    Costs,
    Objective,
    Partitioner,
    TargetInfo,
)
from hardpoint.planning.validate import check_assignment
from hardpoint.program.program import Program, held_tensors
from hardpoint.testing.check import expect, fail
from hardpoint.testing.subject import Subject


def opened(subject: Subject) -> Partitioner:
    """The partitioner under test."""
    partitioner = subject.open()
    if not isinstance(partitioner, Partitioner):
        fail(f"open returned {type(partitioner).__name__}, not a hardpoint.Partitioner")
    return partitioner


def first_objective(subject: Subject) -> Objective:
    """The first that it declares; the check fails where it declares none."""
    objectives: tuple[Objective, ...] = subject.info.objectives
    expect(objectives, "info.objectives is empty: declare at least one, e.g. ('latency',)")
    return objectives[0]


def ask(
    partitioner: Partitioner,
    program: Program,
    targets: Sequence[TargetInfo],
    objective: Objective,
    costs: Costs | None = None,
) -> Assignment:
    """A valid answer; the check fails where it is none."""
    what = question(program, targets, objective)
    try:
        answer = partitioner.partition(program.exported, targets, objective, costs or Costs())
    except HardpointError as error:
        fail(f"{what}: it refused, and there is an assignment: {error}")
    except Exception as error:
        fail(f"{what}: it raised {type(error).__name__}: {error}")
    try:
        return check_assignment(answer, program.exported, targets, "", "")
    except ContractViolation as error:
        fail(f"{what}: {error.cause}")


def must_refuse(
    partitioner: Partitioner, program: Program, targets: Sequence[TargetInfo], objective: Objective
) -> PlanError:
    """The PlanError that it raises; the check fails where it does otherwise."""
    what = question(program, targets, objective)
    try:
        answer = partitioner.partition(program.exported, targets, objective, Costs())
    except PlanError as error:
        return error
    except Exception as error:
        fail(f"{what}: there is no assignment, and it raised {type(error).__name__}: {error}")
    else:
        fail(f"{what}: there is no assignment, and it gave {type(answer).__name__}, no PlanError")


def question(program: Program, targets: Sequence[TargetInfo], objective: Objective) -> str:
    """What was asked, in words."""
    named = ", ".join(
        f"{t.target} ({t.device.memory} bytes)" if t.device.memory is not None else str(t.target)
        for t in targets
    )
    return f"partition() of {program.name!r} over [{named}] for {objective!r}"


def fingerprint(program: ExportedProgram) -> str:
    """Changes with the graph, its annotations, its signature and its weights."""
    digest = hashlib.sha256()
    for node in program.graph.nodes:
        known = sorted((key, type(value).__name__) for key, value in node.meta.items())
        facts = (node.op, node.name, str(node.target), str(node.args), str(node.kwargs), known)
        digest.update(repr(facts).encode())
        digest.update(str(node.meta.get("val")).encode())
    digest.update(program.graph_module.code.encode())
    digest.update(str(program.graph_signature).encode())
    for name, tensor in sorted(held_tensors(program).items()):
        plain = tensor.detach().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.shape} {tensor.data_ptr()}".encode())
        digest.update(bytes(plain.view(torch.uint8).tolist()))
    return digest.hexdigest()
