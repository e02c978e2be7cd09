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
from hardpoint.package.load import load_package
from hardpoint.runtime.model import CompiledModel

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

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
    try:
        return load_package(path, registry=registry, verify=verify)
    except ELSEWHERE as reason:
        if fallback is None:
            offer = "or load it with fallback=['cpu'] to recompile it here"
            reason.remedy = "; ".join(filter(None, (reason.remedy, offer)))
            raise
        targets = [fallback] if isinstance(fallback, str) else list(fallback)
        why = reason.what + (f": {reason.cause}" if reason.cause else "")
    warnings.warn(
        f"{path} falls back to {', '.join(targets)}: {why}", HardpointWarning, stacklevel=3
    )
    # Imported now: a package that merely runs needs no compiler.
    from hardpoint.compiler.compile import compile_plan
    from hardpoint.package.program_file import read_program_file
    from hardpoint.planning.planner import plan_program

    facts = {"path": str(path), "to": targets, "reason": why}
    registry.emit(Event("fell back", data=facts))
    plan = plan_program(read_program_file(path), registry=registry, targets=targets)
    return compile_plan(plan, registry=registry)
