"""Mode ``eager``: PyTorch's own kernels, one after the other, with nothing in between."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hardpoint import Artifact, Executable
from hardpoint_cpu import emit, executed, forks, wire, wire_read
from hardpoint_cpu.formats import EAGER
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.origin import artifact_error
from hardpoint_cpu.recipe import CPU
from hardpoint_cpu.segment import Segment


def compile_segment(segment: Segment, operators: Operators, kind: str = EAGER) -> Artifact:
    """The graph as data; nothing is generated.

    :raises CompileError: a node that the format does not hold.
    """
    return Artifact(
        format=kind,
        files={wire.FILE: wire.encode(segment, operators)},
        weights=segment.named_weights(),
        metadata={"torch": torch.__version__, executed.KEY: segment.executed.to_json()},
    )


def load(artifact: Artifact, operators: Operators, device: torch.device = CPU) -> EagerExecutable:
    """Open an artifact of this mode on ``device``.

    :raises ArtifactError: damaged, or its weights are not all there.
    """
    recipe = wire_read.decode(file(artifact, wire.FILE), operators, device)
    told = executed.read(artifact.metadata)
    held = weights(artifact, recipe.weights, device)
    return EagerExecutable(emit.function(recipe, held), told, device.type)


def file(artifact: Artifact, name: str) -> bytes | memoryview:
    """One file of the artifact.

    :raises ArtifactError: it is not there.
    """
    if name not in artifact.files:
        raise artifact_error(f"the artifact has no file {name!r}", remedy="compile it again")
    return artifact.files[name]


def weights(
    artifact: Artifact, names: tuple[str, ...], device: torch.device = CPU
) -> Mapping[str, torch.Tensor]:
    """The weights that a graph uses, detached, on ``device``; memory is shared where it is there.

    :raises ArtifactError: one is not there.
    """
    missing = [name for name in names if name not in artifact.weights]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise artifact_error(
            f"the artifact lacks the weight {missing[0]!r}{more}",
            remedy="load it together with the weights that it was compiled with",
        )
    return {name: artifact.weights[name].detach().to(device) for name in names}


class EagerExecutable(Executable):
    """A straight-line function over PyTorch's operators. Safe to call from any thread."""

    def __init__(
        self, run: emit.Function, told: Mapping[str, object], device_type: str = "cpu"
    ) -> None:
        self._run, self._told, self._type = run, told, device_type

    def facts(self) -> Mapping[str, object]:
        """The arithmetic of the graph's operators, and what this process runs them with."""
        return executed.facts(self._told, "eager")

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run, without recording gradients and without the caller's autocast."""
        if forks.state.forked is not None and forks.here():
            return forks.elsewhere(self, inputs)
        # Asking is five times cheaper than entering a context that changes nothing.
        if torch.is_grad_enabled():
            with torch.no_grad():
                return self(*inputs)
        if torch.is_autocast_enabled(self._type):
            with torch.autocast(self._type, enabled=False):
                return self._run(*inputs)
        return self._run(*inputs)
