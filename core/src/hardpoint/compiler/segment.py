"""Compile and open one segment through its backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from hardpoint.errors import CompileError, HardpointError
from hardpoint.interfaces.backend import CompileOptions, Precision
from hardpoint.planning.data import Segment
from hardpoint.planning.validate import check_artifact
from hardpoint.runtime.opening import open_artifact
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


def compile_segment(
    segment: Segment,
    registry: Registry,
    precision: Precision,
    examples: Sequence[torch.Tensor],
    options: Mapping[str, object],
    *,
    isolate: bool = False,
    timeout: float | None = None,
) -> OpenedSegment:
    """The segment, compiled and opened.

    :param isolate: compile in a child process, so that a crash of the vendor's compiler is an
        error here and not the end of this process.
    :raises CompileError: the backend cannot compile it; says which segment and why.
    """
    name = segment.target.backend
    provider, origin = f"backend:{name}", registry.record("backend", name).origin
    info = registry.info("backend", name)
    if precision not in info.precisions:
        raise CompileError(
            f"{segment.target} does not compute in {precision}",
            provider=provider, origin=origin,
            remedy=f"choose one of {', '.join(info.precisions)}, or another target",
        )  # fmt: skip
    wanted = CompileOptions(precision=precision, example_inputs=tuple(examples), backend=options)
    backend = registry.open("backend", name)
    try:
        if isolate:
            from hardpoint.compiler.isolate import compile_in_child

            artifact = compile_in_child(segment, registry, wanted, timeout)
        else:
            artifact = backend.compile(segment.program, segment.device, wanted)
    except HardpointError as error:
        error.provider, error.origin = error.provider or provider, error.origin or origin
        raise
    except Exception as error:
        raise CompileError(
            f"segment {segment.id} ({len(segment.nodes)} operations) could not be compiled for "
            f"{segment.target}",
            provider=provider, origin=origin,
            cause=f"{type(error).__name__}: {str(error)[:600]}",
            remedy="leave that target out of targets=, or report it to the plugin's author",
        ) from error  # fmt: skip
    return open_artifact(
        segment.id,
        segment.target,
        segment.device,
        check_artifact(artifact, provider, origin),
        backend,
        registry,
    )
