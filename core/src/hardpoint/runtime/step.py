"""One segment, opened: an executable with what the runtime must do around each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from hardpoint.errors import ContractViolation, HardpointError, ProviderFailed
from hardpoint.interfaces.backend import Artifact, Executable
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device
from hardpoint.runtime.boundary import Call, Copies, CopyError, Leave, entering
from hardpoint.runtime.faults import translated


@dataclass(frozen=True, eq=False)
class OpenedSegment:
    """A segment that can be called.

    :param id: the segment's, as in the plan and the schedule.
    :param provider: ``backend:name``. :param origin: its ``distribution version``.
    :param strided: the executable honours strides; where false it gets contiguous tensors only.
    :param alignment: bytes that the address of each of its inputs must be a multiple of.
    :param copies: what had to be copied on the way in.
    """

    id: str
    target: Target
    device: Device
    provider: str
    origin: str
    artifact: Artifact
    executable: Executable
    strided: bool
    alignment: int = 1
    copies: Copies = field(default_factory=Copies)

    def call(self, moves: bool, leaving: Mapping[int, Leave] | None = None) -> Call:
        """What the runtime calls: the executable itself where nothing needs to be done around it.

        :param moves: some input may come from another device.
        :param leaving: position of an input -> how the segment that makes it brings it to the CPU.
        """
        device = torch.device(self.device.torch_device) if moves else None
        return entering(
            self.executable, self.copies, device=device, strided=self.strided,
            alignment=self.alignment, leaving=leaving,
        )  # fmt: skip

    def to_cpu(self, tensor: torch.Tensor) -> torch.Tensor:
        """A result of this segment, on the CPU.

        :raises ContractViolation: the executable gave something else.
        """
        found = self.executable.to_cpu(tensor)
        if (
            not isinstance(found, torch.Tensor)
            or found.device.type != "cpu"
            or (found.dtype, found.shape) != (tensor.dtype, tensor.shape)
        ):
            raise ContractViolation(
                f"segment {self.id} on {self.target} brought a result to the CPU that is another",
                provider=self.provider, origin=self.origin,
                cause=f"its executable's to_cpu() was given {_words(tensor)} and returned "
                f"{_words(found)}",
                remedy="report it to the plugin's author",
            )  # fmt: skip
        return found

    def failure(self, error: Exception) -> HardpointError:
        """The reader's version of what an executable raised."""
        if isinstance(error, CopyError):
            error = error.original
        fault = translated(
            error, f"segment {self.id} on {self.target}", provider=self.provider, origin=self.origin
        )
        if fault is not None:
            return fault
        if isinstance(error, HardpointError):
            return error
        return ProviderFailed(
            f"segment {self.id} failed on {self.target}",
            provider=self.provider,
            origin=self.origin,
            cause=f"{type(error).__name__}: {error}",
            remedy="compile for another target, or report it to the plugin's author",
        )


def _words(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype}{list(value.shape)} on {value.device}"
