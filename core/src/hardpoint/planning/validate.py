"""The core trusts no provider: what it answers is checked, and a violation names it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set

import torch
from torch.export import ExportedProgram

from hardpoint.errors import ContractViolation, PlanError
from hardpoint.interfaces.backend import Artifact, Support
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Assignment, TargetInfo
from hardpoint.planning.graph import compute_nodes

_REPORT = "report it to the plugin's author; `hardpoint check` shows the whole contract"


def check_support(support: object, program: ExportedProgram, provider: str, origin: str) -> Support:
    """Every compute node in exactly one of the two answers, every refusal with its reason.

    :raises ContractViolation: otherwise.
    """

    def broken(cause: str) -> ContractViolation:
        return ContractViolation(
            "a backend's support() broke the contract",
            provider=provider, origin=origin, cause=cause, remedy=_REPORT,
        )  # fmt: skip

    if not isinstance(support, Support):
        raise broken(f"it returned {type(support).__name__}, not Support")
    if not isinstance(support.supported, Set):
        raise broken(f"supported is {_type(support.supported)}, not a set of names")
    if not isinstance(support.unsupported, Mapping):
        raise broken(
            f"unsupported is {_type(support.unsupported)}, not a mapping of names to reasons"
        )
    names = {n.name for n in compute_nodes(program)}
    both = support.supported & support.unsupported.keys()
    if both:
        raise broken(f"{min(both)!r} is both supported and unsupported")
    unanswered = names - support.supported - support.unsupported.keys()
    if unanswered:
        raise broken(f"it says nothing about {_some(unanswered)}")
    for name, reason in support.unsupported.items():
        if not isinstance(reason, str) or not reason.strip():
            raise broken(f"it refuses {name!r} without a reason")
    return support


def check_assignment(
    assignment: object,
    program: ExportedProgram,
    candidates: Sequence[TargetInfo],
    provider: str,
    origin: str,
) -> Assignment:
    """Every compute node assigned, to a candidate that supports it, and nothing else.

    :raises ContractViolation: otherwise.
    """

    def broken(cause: str) -> ContractViolation:
        return ContractViolation(
            "a partitioner's assignment broke the contract",
            provider=provider, origin=origin, cause=cause, remedy=_REPORT,
        )  # fmt: skip

    if not isinstance(assignment, Assignment):
        raise broken(f"it returned {type(assignment).__name__}, not Assignment")
    if not isinstance(assignment.targets, Mapping):
        raise broken(f"targets is {_type(assignment.targets)}, not a mapping of names to targets")
    if not isinstance(assignment.reasons, Mapping):
        raise broken(f"reasons is {_type(assignment.reasons)}, not a mapping of names to words")
    names = {n.name for n in compute_nodes(program)}
    missing = names - assignment.targets.keys()
    if missing:
        raise broken(f"it leaves out {_some(missing)}")
    extra = assignment.targets.keys() - names
    if extra:
        raise broken(f"it assigns {_some(extra)}, which are no compute nodes of the program")
    known: dict[Target, TargetInfo] = {c.target: c for c in candidates}
    for name, target in assignment.targets.items():
        if not isinstance(target, Target):
            raise broken(f"it assigns {name!r} to a {_type(target)}, not a Target")
        if target not in known:
            raise broken(f"it assigns {name!r} to {target}, which is no candidate")
        reason = known[target].support.unsupported.get(name)
        if reason is not None:
            raise broken(f"it assigns {name!r} to {target}, which cannot run it: {reason}")
    return assignment


def check_coverage(program: ExportedProgram, candidates: Sequence[TargetInfo]) -> None:
    """Every compute node has a candidate that runs it.

    :raises PlanError: naming the first such nodes and every candidate's reason.
    """
    orphans = [
        node
        for node in compute_nodes(program)
        if not any(node.name in c.support.supported for c in candidates)
    ]
    if not orphans:
        return
    first = orphans[0]
    reasons = "; ".join(f"{c.target}: {c.support.unsupported[first.name]}" for c in candidates)
    raise PlanError(
        f"no target can run {len(orphans)} of the program's operations "
        f"({_some({n.name for n in orphans})})",
        cause=f"{first.name} ({first.target}): {reasons or 'there are no targets'}",
        remedy="add a target that runs them, e.g. targets=['...', 'cpu']",
    )


def check_artifact(artifact: object, provider: str, origin: str) -> Artifact:
    """Bytes by name, tensors by name, metadata that JSON can hold.

    :raises ContractViolation: otherwise.
    """

    def broken(cause: str) -> ContractViolation:
        return ContractViolation(
            "a backend's compile() broke the contract",
            provider=provider, origin=origin, cause=cause, remedy=_REPORT,
        )  # fmt: skip

    if not isinstance(artifact, Artifact):
        raise broken(f"it returned {type(artifact).__name__}, not Artifact")
    if not isinstance(artifact.format, str) or not artifact.format:
        raise broken("the artifact has no format")
    for field in ("files", "weights", "metadata"):
        if not isinstance(getattr(artifact, field), Mapping):
            raise broken(f"{field} is {_type(getattr(artifact, field))}, not a mapping")
    for name, data in artifact.files.items():
        if (
            not isinstance(name, str)
            or not name
            or name.startswith("/")
            or ".." in name.split("/")
            or "\\" in name
        ):
            raise broken(f"file name {name!r} is not a plain relative name")
        if not isinstance(data, (bytes, memoryview)):
            raise broken(f"file {name!r} is {type(data).__name__}, not bytes")
    for name, tensor in artifact.weights.items():
        if not isinstance(tensor, torch.Tensor):
            raise broken(f"weight {name!r} is {type(tensor).__name__}, not a tensor")
    try:
        json.dumps(artifact.metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise broken(f"metadata is not JSON: {error}") from error
    return artifact


def check_outputs(
    outputs: object,
    expected: Mapping[str, torch.Tensor],
    device: str,
    provider: str,
    origin: str,
) -> None:
    """A segment's results have the number, dtype, shape and device that the program says.

    :param expected: name of value -> the reference tensor (or one shaped like it).
    :param device: the segment's, in PyTorch's terms.
    :raises ContractViolation: otherwise.
    """

    def broken(cause: str) -> ContractViolation:
        return ContractViolation(
            "an executable's result broke the contract",
            provider=provider, origin=origin, cause=cause, remedy=_REPORT,
        )  # fmt: skip

    if not isinstance(outputs, tuple):
        raise broken(f"it returned {type(outputs).__name__}, not a tuple of tensors")
    if len(outputs) != len(expected):
        raise broken(f"it returned {len(outputs)} tensors instead of {len(expected)}")
    for value, (name, want) in zip(outputs, expected.items(), strict=True):
        if not isinstance(value, torch.Tensor):
            raise broken(f"{name} is {type(value).__name__}, not a tensor")
        for what in ("dtype", "shape"):
            if getattr(value, what) != getattr(want, what):
                raise broken(
                    f"{name} has {what} {_plain(getattr(value, what))}, "
                    f"the program says {_plain(getattr(want, what))}"
                )
        if value.layout is not torch.strided:
            raise broken(f"{name} is {value.layout}, not a dense tensor")
        if value.device.type != torch.device(device).type:
            raise broken(f"{name} is on {value.device}, the segment's device is {device}")


def _type(value: object) -> str:
    return type(value).__name__


def _plain(value: object) -> str:
    return str(list(value)) if isinstance(value, torch.Size) else str(value).removeprefix("torch.")


def _some(names: set[str], most: int = 3) -> str:
    shown = sorted(names)[:most]
    more = len(names) - len(shown)
    return ", ".join(map(repr, shown)) + (f" and {more} more" if more else "")
