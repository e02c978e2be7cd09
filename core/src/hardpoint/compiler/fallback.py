"""Load a package; where a target is missing here, compile its program for others if allowed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hardpoint.errors import (
    ArtifactError,
    HardpointWarning,
    ProviderFailed,
    ProviderNotFound,
    ProviderUnavailable,
)
from hardpoint.events import Event
from hardpoint.interfaces.kinds import Target
from hardpoint.package.load import load_package

if TYPE_CHECKING:
    from hardpoint.compiler.request import Options
    from hardpoint.registry.registry import Registry
    from hardpoint.runtime.model import CompiledModel, Fallback, Replacement
    from hardpoint.runtime.wiring import FaultedError

# Why an artifact may not run here although the package is sound and policy allows its backend.
ELSEWHERE = (ProviderNotFound, ProviderUnavailable, ProviderFailed, ArtifactError)


def load_or_recompile(
    path: Path,
    *,
    registry: Registry,
    fallback: str | Sequence[str] | None,
    verify: Literal["full", "quick"],
) -> CompiledModel:
    """See :func:`hardpoint.load`. A fallback gives a warning and an event, never silence.

    :raises ArtifactError: made for another machine or version, and no ``fallback`` was given.
    """
    named = [fallback] if isinstance(fallback, str) else list(fallback or ())
    chain = tuple(map(Target.parse, named))
    for target in chain:  # a typing error is told now, not when the device is lost
        registry.record("backend", target.backend)
    try:
        model = load_package(path, registry=registry, verify=verify)
    except ELSEWHERE as reason:
        if not chain:
            offer = "or load it with fallback=['cpu'] to recompile it here"
            reason.remedy = "; ".join(filter(None, (reason.remedy, offer)))
            raise
        why = reason.what + (f": {reason.cause}" if reason.cause else "")
    else:
        if chain:
            model.fallback = later(chain, registry, model)
        return model
    targets = [str(target) for target in chain]
    warnings.warn(
        f"{path} falls back to {', '.join(targets)}: {why}", HardpointWarning, stacklevel=3
    )
    # Imported now: a package that merely runs needs no compiler.
    from hardpoint.compiler.compile import compile_plan
    from hardpoint.package.program_file import read_program_file
    from hardpoint.planning.planner import plan_program

    facts = {"path": str(path), "to": targets, "reason": why}
    registry.emit(Event("fell back", data=facts))
    plan = plan_program(read_program_file(path), registry=registry, targets=chain)
    model = compile_plan(plan, registry=registry, fallback=chain)
    model.fell_back = (facts, *model.fell_back)
    return model


def later(
    chain: tuple[Target, ...],
    registry: Registry,
    model: CompiledModel,
    options: Options | None = None,
) -> Fallback:
    """The fallback of a model that was loaded; the compiler is imported when it is needed.

    It compiles in the precision of the program as it is, to the error that the package allows.

    :param options: backend -> its own, for the targets of the chain.
    """
    allowed = model.facts.verification.get("allowed")
    made: list[Fallback] = []

    def fallback(model: CompiledModel, faulted: FaultedError) -> Replacement:
        from hardpoint.compiler.precision import Precisions
        from hardpoint.compiler.recover import Recovery
        from hardpoint.compiler.request import CompileRequest

        if not made:
            limit = float(allowed) if isinstance(allowed, (int, float)) else None
            request = CompileRequest(Precisions(), limit, options, chain=chain)
            made.append(Recovery(registry, request))
        return made[0](model, faulted)

    return fallback
