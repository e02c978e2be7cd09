"""The backend: ONNX Runtime, one device for each execution provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hardpoint import (
    Artifact,
    Backend,
    CompileOptions,
    Device,
    Executable,
    HardpointError,
    Support,
    did_you_mean,
)
from hardpoint_onnxruntime import artifact as artifacts
from hardpoint_onnxruntime.executable import Port
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.origin import artifact_error, compile_error, config_error
from hardpoint_onnxruntime.session import open_session, session_options

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from hardpoint_onnxruntime.slices import Part
    from hardpoint_onnxruntime.support import Judge


class OrtBackend(Backend):
    """``backend:onnxruntime``.

    :param devices: as the probe found them. :param config: there is none.
    :raises ConfigError: configuration.
    """

    def __init__(self, devices: Sequence[Device], config: Mapping[str, object]) -> None:
        for name in config:
            raise config_error(
                f"the onnxruntime backend has no configuration {name!r}", "leave it out"
            )
        self._devices = {device.id: device for device in devices}
        self._judges: dict[str, Judge] = {}

    def devices(self) -> Sequence[Device]:
        """One for each execution provider that is here, the CPU first."""
        return tuple(self._devices.values())

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Every node that ONNX Runtime takes alone, on this device, and gives eager's results for.

        Each sort of node is translated, opened and run once, with ordinary numbers, with NaN and
        infinities, and with large integers; what was tried is remembered.
        """
        own = self._own(device, compile_error)
        if own.id not in self._judges:
            from hardpoint_onnxruntime.support import Judge  # not above: needs the exporter

            self._judges.setdefault(own.id, Judge(_opener(own)))
        return self._judges[own.id].support(program)

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Export a segment, quantize it where asked, and open it once on the device.

        :raises CompileError: with the reason in words. :raises ConfigError: unknown options.
        """
        own = self._own(device, compile_error)
        wanted = Options.parse(options.backend)
        from hardpoint_onnxruntime.lower import lower  # not above: loading needs no exporter

        model, inputs, outputs = lower(program, own, options, wanted)
        ports = _typed(inputs, program), _results(outputs, program)
        made = artifacts.pack(model, own, options.precision, wanted, *ports)
        try:
            artifacts.load(made, own).close()
        except HardpointError as error:
            raise compile_error(
                f"the segment was exported, and does not open on {own.id}: {error.what}",
                cause=error.cause,
                remedy=error.remedy,
            ) from error
        return made

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact.

        :raises ArtifactError: another format, provider or version, damaged; with the reason.
        """
        own = self._own(device, artifact_error)
        if artifact.format != artifacts.FORMAT:
            raise artifact_error(
                f"the artifact's format {artifact.format!r} is not one that the onnxruntime "
                "backend reads",
                cause=f"it reads {artifacts.FORMAT}",
                remedy="open it with the backend that made it, or compile the segment again",
            )
        return artifacts.load(artifact, own)

    def _own(self, device: Device, error: Callable[..., HardpointError]) -> Device:
        if device.id not in self._devices:
            raise error(
                f"the onnxruntime backend has no device {device.id!r}",
                cause=f"its devices are {', '.join(self._devices)}",
                remedy=did_you_mean(device.id, list(self._devices)),
            )
        return self._devices[device.id]


def _opener(device: Device) -> Callable[[bytes], Any]:
    def opened(model: bytes) -> Any:
        settings = session_options(Options(), 1, str(device.properties["provider"]))
        return open_session(model, settings, device)

    return opened


def _typed(names: Sequence[tuple[str, Sequence[Part]]], program: ExportedProgram) -> list[Port]:
    """The model's inputs, which the exporter may rename: they go by position."""
    user = set(program.graph_signature.user_inputs)
    taken = [n.meta["val"].dtype for n in program.graph.nodes if n.name in user]
    return [
        Port(name, dtype, tuple(slices)) for (name, slices), dtype in zip(names, taken, strict=True)
    ]


def _results(names: Sequence[str], program: ExportedProgram) -> list[Port]:
    results: Any = program.graph.output_node().args[0]
    values: list[torch.Tensor] = [result.meta["val"] for result in results]
    return [Port(name, value.dtype) for name, value in zip(names, values, strict=True)]
