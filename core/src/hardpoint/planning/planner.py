"""From a program and the installed providers to a plan."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import (
    ConfigError,
    HardpointError,
    PlanError,
    ProviderFailed,
    did_you_mean,
)
from hardpoint.events import Event
from hardpoint.interfaces.backend import Support
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import (
    OBJECTIVES,
    Costs,
    Objective,
    Partitioner,
    TargetInfo,
)
from hardpoint.interfaces.probe import Device
from hardpoint.planning import costs, validate
from hardpoint.planning.build import build_segment
from hardpoint.planning.data import Segment
from hardpoint.planning.devices import find_device
from hardpoint.planning.extract import pieces
from hardpoint.planning.plan import Plan
from hardpoint.planning.segments import cut
from hardpoint.program.program import Program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from hardpoint.registry.registry import Registry

Targets = Literal["auto"] | str | Target | Sequence[str | Target]


def plan_program(
    program: Program,
    *,
    registry: Registry,
    targets: Targets = "auto",
    objective: Objective = "latency",
    partitioner: str | Partitioner = "capability",
    costs_given: Costs | None = None,
) -> Plan:
    """Decide where each part of ``program`` runs.

    :param targets: ``"auto"`` (every available backend; those on other devices than the CPU first,
        then by name), one target, or several in order of preference.
    :param partitioner: a provider's name, or an object of the interface.
    :raises PlanError: some operation runs on none of the targets.
    :raises ProviderUnavailable: a target named explicitly is not available here, with the reason.
    """
    start = time.perf_counter()
    if not isinstance(program, Program):
        raise PlanError(
            f"plan() takes a program, got {type(program).__name__}",
            remedy="capture the model first: hp.plan(hp.capture(model, (x,)))",
        )
    if objective not in OBJECTIVES:
        raise ConfigError(
            f"{objective!r} is no objective", remedy=did_you_mean(objective, OBJECTIVES)
        )
    if targets == "auto":
        wanted, skipped = automatic_targets(registry)
    else:
        named = [targets] if isinstance(targets, (str, Target)) else list(targets)
        wanted, skipped = [Target.parse(t) for t in named], []
    if not wanted and targets != "auto":
        raise PlanError("targets is empty", remedy="name one, e.g. targets='cpu', or say 'auto'")
    if not wanted:
        raise PlanError(
            "there is no target to plan for",
            cause="; ".join(f"{name}: {why}" for name, why in skipped) or "no backend is installed",
            remedy='pip install "hardpoint[standard]"; `hardpoint doctor` tells more',
        )
    candidates = [candidate(program, t, registry) for t in dict.fromkeys(wanted)]
    validate.check_coverage(program.exported, candidates)
    name, origin, decider = _partitioner(partitioner, objective, registry)
    given = costs_given or Costs()
    try:
        answer = decider.partition(program.exported, candidates, objective, given)
    except HardpointError:
        raise
    except Exception as error:
        raise ProviderFailed(
            "a partitioner failed", provider=name, origin=origin,
            cause=f"{type(error).__name__}: {error}", remedy="choose another with partitioner=",
        ) from error  # fmt: skip
    assignment = validate.check_assignment(answer, program.exported, candidates, name, origin)
    plan = Plan(
        program=program,
        segments=_segments(program, assignment.targets, candidates, registry, given),
        candidates=tuple(candidates),
        objective=objective,
        partitioner=f"{name} ({origin})" if origin else name,
        skipped=tuple(skipped),
        reasons=dict(assignment.reasons),
        basis=f"{costs.BASIS}; seconds: {given.basis}" if given.node_seconds else costs.BASIS,
    )
    registry.emit(
        Event("planned", name, {"program": program.name, "segments": len(plan.segments),
                                "targets": [str(t) for t in plan.targets],
                                "seconds": time.perf_counter() - start})
    )  # fmt: skip
    return plan


def automatic_targets(registry: Registry) -> tuple[list[Target], list[tuple[str, str]]]:
    """Every available backend's first device, accelerators first; and what was left out."""
    found = registry.available("backend")
    ready = sorted(
        found.ready,
        key=lambda item: (
            item[1].devices[0].torch_device == "cpu" if item[1].devices else True,
            item[0],
        ),
    )
    return [Target(name) for name, _ in ready], list(found.skipped)


def candidate(program: Program, target: Target, registry: Registry) -> TargetInfo:
    """``target`` with its device and what it can run of ``program``."""
    device = find_device(registry, target)
    return TargetInfo(target, device, support_of(program.exported, target, device, registry))


def support_of(
    exported: ExportedProgram, target: Target, device: Device, registry: Registry
) -> Support:
    """What the backend says of each node, checked.

    :raises ProviderFailed: it could not say.
    """
    provider = f"backend:{target.backend}"
    origin = registry.record("backend", target.backend).origin
    backend = registry.open("backend", target.backend)
    try:
        support = backend.support(exported, device)
    except HardpointError:
        raise
    except Exception as error:
        raise ProviderFailed(
            "a backend could not say what it supports", provider=provider, origin=origin,
            cause=f"{type(error).__name__}: {error}", remedy="leave it out of targets=",
        ) from error  # fmt: skip
    return validate.check_support(support, exported, provider, origin)


def _partitioner(
    wanted: str | Partitioner, objective: Objective, registry: Registry
) -> tuple[str, str, Partitioner]:
    if isinstance(wanted, Partitioner):
        return f"partitioner:{type(wanted).__name__}", "", wanted
    key, origin = f"partitioner:{wanted}", registry.record("partitioner", wanted).origin
    declared = registry.info("partitioner", wanted).objectives
    if objective not in declared:
        raise ConfigError(
            f"{key} does not optimise for {objective}", provider=key, origin=origin,
            cause=f"it declares {', '.join(declared) or 'no objective'}",
            remedy="choose one of those with objective=, or another partitioner=",
        )  # fmt: skip
    return key, origin, registry.open("partitioner", wanted)


def _segments(
    program: Program,
    assigned: dict[str, Target] | object,
    candidates: Sequence[TargetInfo],
    registry: Registry,
    given: Costs,
) -> tuple[Segment, ...]:
    groups = cut(program.exported, assigned)  # type: ignore[arg-type]
    made = pieces(program.exported, [nodes for _, nodes in groups])
    devices = {c.target: c.device for c in candidates}
    return tuple(
        build_segment(
            f"s{i}", target, devices[target], program, nodes, piece,
            contiguous=not registry.info("backend", target.backend).strided_inputs, given=given,
        )
        for i, ((target, nodes), piece) in enumerate(zip(groups, made, strict=True))
    )  # fmt: skip
