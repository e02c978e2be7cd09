"""Mode ``inductor``: PyTorch's compiler, run on the machine that runs the segment.

PyTorch 2.13 can save what Inductor compiled only as pickles (``CompiledArtifact.save``), which an
artifact must not hold. So the artifact is the graph; loading it compiles again, through Inductor's
own cache on disk, and needs a C++ compiler. Compiling ahead of time is mode ``aot``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch._subclasses import FakeTensorMode
from torch.fx import GraphModule

from hardpoint import Artifact, ArtifactError, CompileError, Executable
from hardpoint_cpu import eager, emit, executed, forks, host, shapes, wire, wire_read
from hardpoint_cpu.formats import INDUCTOR
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.origin import artifact_error, compile_error, in_words
from hardpoint_cpu.recipe import CPU
from hardpoint_cpu.segment import Segment
from hardpoint_cpu.tuning import TUNING, Tuning

# Inductor's configuration and its tracing context belong to the process: one compilation at a time.
_LOCK = threading.RLock()

Compiled = Callable[..., Sequence[torch.Tensor]]


def compile_segment(
    segment: Segment, described: Mapping[str, Any], operators: Operators, tuning: Tuning
) -> Artifact:
    """Compile once, to prove that it works and to fill Inductor's cache, and keep the graph.

    :raises CompileError: no compiler, or Inductor's reason.
    """
    data = wire.encode(segment, operators)
    build(segment.module(), described, tuning, segment.executed)
    return Artifact(
        format=INDUCTOR,
        files={wire.FILE: data},
        weights=segment.named_weights(),
        metadata=metadata(segment, described, tuning),
    )


def metadata(segment: Segment, described: Mapping[str, Any], tuning: Tuning) -> dict[str, object]:
    """What :func:`load` needs to know beside the graph."""
    return {
        "torch": torch.__version__,
        "inputs": dict(described),
        TUNING: tuning.to_json(),
        executed.KEY: segment.executed.to_json(),
        "needs": "a C++ compiler where it is loaded: it is compiled again there",
    }


def load(
    artifact: Artifact, operators: Operators, device: torch.device = CPU
) -> InductorExecutable:
    """Compile the artifact's graph for this machine, and ``device``.

    :raises ArtifactError: damaged, or it cannot be compiled here, and why.
    """
    recipe = wire_read.decode(eager.file(artifact, wire.FILE), operators, device)
    described = artifact.metadata.get("inputs")
    if not isinstance(described, Mapping):
        raise artifact_error(
            "the artifact does not describe its inputs", remedy="compile the segment again"
        )
    told, tuning = executed.read(artifact.metadata), Tuning.read(artifact.metadata)
    found = executed.Executed.of(told)
    module = emit.graph_module(recipe, eager.weights(artifact, recipe.weights, device))
    try:
        compiled = build(module, described, tuning, found, device)
    except CompileError as error:
        raise artifact_error(
            "the artifact cannot be compiled on this machine",
            cause=error.cause or error.what,
            remedy=error.remedy or "use mode 'aot', which is compiled once, or mode 'eager'",
        ) from error
    return InductorExecutable(compiled, found.to_json())


def build(
    module: GraphModule,
    described: Mapping[str, Any],
    tuning: Tuning,
    found: executed.Executed,
    device: torch.device = CPU,
) -> Compiled:
    """``module``, whose weights are on ``device``, compiled for inputs there, as described.

    :param found: what it asks for; of int8 it says afterwards what was made of it.
    :raises CompileError: no compiler, Inductor's reason, or code that holds for some sizes only.
    """
    from torch._inductor.compile_fx import compile_fx

    with (
        compiling(described, device) as (mode, inputs),
        observed(tuning, found),
        torch._guards.tracing(torch._guards.TracingContext(mode)),
    ):
        compiled = compile_fx(module, inputs)
    return cast(Compiled, compiled)


@contextmanager
def observed(tuning: Tuning, found: executed.Executed) -> Iterator[None]:
    """Inductor configured; afterwards ``found`` tells what became of int8 layers."""
    from torch._inductor import config

    from hardpoint_cpu.compiled_layers import CompiledLayers  # imports Inductor

    seen, patches = CompiledLayers(), tuning.patches()
    if tuning.integers:
        patches["post_grad_custom_pre_pass"] = seen
    with config.patch(patches):
        yield
    if tuning.integers:
        seen.correct(found)


@contextmanager
def compiling(
    described: Mapping[str, Any], device: torch.device = CPU
) -> Iterator[tuple[FakeTensorMode, list[Any]]]:
    """All that surrounds one run of Inductor; gives its fake inputs. Leaves no state behind.

    :raises CompileError: no compiler, the reason of what went wrong inside, or code that holds for
        some sizes only.
    """
    missing = host.compiler_missing()
    if missing is not None:
        raise compile_error(
            "the segment cannot be compiled on this machine",
            cause=missing,
            remedy=f"{host.COMPILER_REMEDY}; mode 'eager' needs none",
        )
    # Under torch.compile the caller has a tracing context of its own, with other fake tensors.
    untraced = torch._guards.tracing(None)
    with _LOCK, untraced, torch.no_grad(), torch.autocast(device.type, enabled=False):
        environment, mode, inputs = shapes.fakes(described, device)
        try:
            yield mode, inputs
        except (CompileError, ArtifactError):
            raise
        except Exception as error:
            raise compile_error(
                "Inductor could not compile the segment",
                cause=in_words(error),
                remedy="use mode 'eager' for this segment",
            ) from error
        narrowed = shapes.specialized(environment)
        if narrowed is not None:
            raise compile_error(
                "Inductor's code for this segment holds for some of its sizes only",
                cause=f"it took for granted: {narrowed}",
                remedy="bound these sizes when capturing (dynamic={'x': {0: torch.export.Dim("
                "'batch', max=512)}}), make them static, or use mode 'eager'",
            )


class InductorExecutable(Executable):
    """Inductor's function, given contiguous inputs as it was compiled for."""

    def __init__(self, compiled: Compiled, told: Mapping[str, object]) -> None:
        self._compiled, self._told = compiled, told

    def facts(self) -> Mapping[str, object]:
        """What was compiled here, and what this process runs it with."""
        return executed.facts(self._told, "inductor")

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run, without recording gradients."""
        if forks.state.forked is not None and forks.here():
            return forks.elsewhere(self, inputs)
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self(*inputs)
        return tuple(self._compiled(*[tensor.contiguous() for tensor in inputs]))
