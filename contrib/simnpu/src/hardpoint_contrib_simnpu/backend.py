"""The backend: some simulated devices, one compiler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.export import ExportedProgram

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
from hardpoint.planning import compute_nodes
from hardpoint_contrib_simnpu.calibrate import int8_scales
from hardpoint_contrib_simnpu.chip import CHIP, in_bytes
from hardpoint_contrib_simnpu.codec import FILE, LISTING, encode
from hardpoint_contrib_simnpu.executable import open_artifact
from hardpoint_contrib_simnpu.isa import FORMAT
from hardpoint_contrib_simnpu.lower import lower
from hardpoint_contrib_simnpu.options import Settings, no_options
from hardpoint_contrib_simnpu.origin import artifact_error, compile_error
from hardpoint_contrib_simnpu.program import disassemble
from hardpoint_contrib_simnpu.support import refusal, support


class SimNpu(Backend):
    """``backend:simnpu``.

    :param config: ``devices`` (1 to 4) and ``dram_mib`` (memory of each).
    :raises ConfigError: unknown configuration, or a value out of range.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._devices = {d.id: d for d in Settings.parse(config).all_devices()}

    def devices(self) -> Sequence[Device]:
        """The simulated devices, all alike."""
        return tuple(self._devices.values())

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """What the chip computes, with tensors that fit the device and tiles that fit the pad."""
        return support(program, _memory(self._devices.get(device.id, device)))

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Lower a segment to instructions.

        :raises CompileError: with the reason in words, and figures where it does not fit.
        :raises ConfigError: an option; there are none.
        """
        no_options(options.backend)
        own = self._devices.get(device.id)
        if own is None:
            raise _unknown(compile_error, device, self._devices)
        if options.precision not in ("fp16", "int8"):
            raise compile_error(
                f"the simnpu backend does not compute in {options.precision}",
                remedy="ask for precision 'fp16' or 'int8', or for another backend",
            )
        for node in compute_nodes(program):
            reason = refusal(node, _memory(own))
            if reason is not None:
                raise compile_error(
                    f"node {node.name!r} cannot be compiled for simnpu",
                    cause=reason,
                    remedy="leave it to another target",
                )
        int8 = options.precision == "int8"
        scales = int8_scales(program, options.example_inputs) if int8 else None
        made = lower(program, scales=scales)
        if made.program.memory > _memory(own):
            raise compile_error(
                f"the segment does not fit device {own.id}",
                cause=f"it needs {in_bytes(made.program.const_bytes)} of DRAM for weights and "
                f"{in_bytes(made.program.dram_bytes)} for a call, the device has "
                f"{in_bytes(_memory(own))}",
                remedy="open the backend with a larger dram_mib, or give it fewer operations",
            )
        return Artifact(
            FORMAT,
            files={FILE: encode(made.program), LISTING: disassemble(made.program).encode()},
            weights={name: torch.from_numpy(array) for name, array in made.weights.items()},
            metadata={
                "chip": CHIP,
                "precision": options.precision,
                "instructions": len(made.program.instructions),
                "dram_bytes": made.program.memory,
            },
        )

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact on any device of this chip with enough memory.

        :raises ArtifactError: another chip, version or device, damaged, or too large.
        """
        own = self._devices.get(device.id)
        if own is None:
            raise _unknown(artifact_error, device, self._devices)
        return open_artifact(artifact, own)


def _memory(device: Device) -> int:
    assert device.memory is not None
    return device.memory


def _unknown(
    error: Callable[..., HardpointError], device: Device, known: Mapping[str, Device]
) -> HardpointError:
    return error(
        f"the simnpu backend has no device {device.id!r}",
        cause=f"its devices are {', '.join(known)}",
        remedy=did_you_mean(device.id, known),
    )
