"""``kit-host``: runs in eager PyTorch what the backend under test does not claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram

from hardpoint.errors import ArtifactError
from hardpoint.hookspecs import hookimpl
from hardpoint.interfaces.backend import (
    Artifact,
    Backend,
    BackendInfo,
    CompileOptions,
    Executable,
    Support,
)
from hardpoint.interfaces.probe import Device, Probe, ProbeRequest
from hardpoint.planning.graph import compute_nodes
from hardpoint.program.program import lifted_inputs

NAME = "kit-host"
_DEVICE = Device("0", "the kit's host")


class _Graph(Executable):
    """A segment's graph, called as it is."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.no_grad():
            return tuple(self._program.graph_module.forward(*lifted_inputs(self._program, inputs)))


class HostBackend(Backend):
    """Supports everything; its artifacts cannot leave the process."""

    def __init__(self) -> None:
        self._programs: list[ExportedProgram] = []

    def devices(self) -> Sequence[Device]:
        """The CPU."""
        return (_DEVICE,)

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Every node."""
        return Support(frozenset(n.name for n in compute_nodes(program)))

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Keep the program."""
        self._programs.append(program)
        return Artifact("hardpoint-kit-host/1", metadata={"index": len(self._programs) - 1})

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """:raises ArtifactError: made by another object than this one."""
        index = artifact.metadata.get("index")
        if not isinstance(index, int) or not 0 <= index < len(self._programs):
            raise ArtifactError("the kit's host runs only what it compiled itself")
        return _Graph(self._programs[index])


class Host:
    """The hooks, for ``registry.add``."""

    def __init__(self) -> None:
        self._backend = HostBackend()

    @hookimpl
    def hardpoint_backend_info(self) -> BackendInfo:
        """Programs are computed as they are written."""
        return BackendInfo(
            requires_api=(1, 0), summary="the kit's host", precisions=("fp32",),
            strided_inputs=True, cpu_kernels=True,
        )  # fmt: skip

    @hookimpl
    def hardpoint_backend_probe(self, request: ProbeRequest) -> Probe:
        """Always ready."""
        return Probe.ready(_DEVICE)

    @hookimpl
    def hardpoint_backend_open(self, config: Mapping[str, object]) -> Backend:
        """The same one at each call: it holds what was compiled."""
        return self._backend
