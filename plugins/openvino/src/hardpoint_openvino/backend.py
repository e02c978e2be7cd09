"""The backend: OpenVINO's devices, one model a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch.export import ExportedProgram

from hardpoint import Artifact, Backend, CompileOptions, Device, Executable, Support
from hardpoint_openvino import sdk
from hardpoint_openvino.compiler import compile_segment
from hardpoint_openvino.loader import load
from hardpoint_openvino.options import Options
from hardpoint_openvino.origin import config_error
from hardpoint_openvino.support import support


class OpenVinoBackend(Backend):
    """``backend:openvino``.

    :raises ConfigError: unknown configuration.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        for name in config:
            raise config_error(
                f"the openvino backend has no configuration {name!r}",
                remedy="leave config empty; options go to compile()",
            )

    def devices(self) -> Sequence[Device]:
        """What OpenVINO finds: the CPU, then GPUs and NPUs."""
        return sdk.devices()

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Operators proven right on OpenVINO, with these arguments, that its front end converts."""
        return support(program)

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Convert, quantize where asked, compile, and keep the model.

        :raises CompileError: with the reason in words.
        :raises ConfigError: unknown options.
        """
        return compile_segment(program, device, options, Options.parse(options.backend))

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact; without a blob that fits, the model is compiled for this machine.

        :raises ArtifactError: another device, or damaged; with the reason.
        """
        return load(artifact, device)
