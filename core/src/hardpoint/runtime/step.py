"""One segment, opened: an executable with what the runtime must do around each call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hardpoint.errors import HardpointError, ProviderFailed
from hardpoint.interfaces.backend import Artifact, Executable
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device
from hardpoint.runtime.faults import translated

Call = Callable[..., tuple[torch.Tensor, ...]]


@dataclass(frozen=True, eq=False)
class OpenedSegment:
    """A segment that can be called.

    :param id: the segment's, as in the plan and the schedule.
    :param provider: ``backend:name``. :param origin: its ``distribution version``.
    :param strided: the executable honours strides; where false it gets contiguous tensors only.
    """

    id: str
    target: Target
    device: Device
    provider: str
    origin: str
    artifact: Artifact
    executable: Executable
    strided: bool

    def call(self, moves: bool) -> Call:
        """What the runtime calls: the executable itself where nothing needs to be done around it.

        :param moves: some input may come from another device.
        """
        if moves:
            return _moving(self.executable, torch.device(self.device.torch_device))
        return self.executable if self.strided else _contiguous(self.executable)

    def failure(self, error: Exception) -> HardpointError:
        """The reader's version of what an executable raised."""
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


def _contiguous(executable: Executable) -> Call:
    def call(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for tensor in inputs:
            if not tensor.is_contiguous():
                return executable(*[t.contiguous() for t in inputs])
        return executable(*inputs)

    return call


def _moving(executable: Executable, device: torch.device) -> Call:
    """Copies what lives elsewhere to the segment's device; ``to`` waits for its source."""

    def call(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return executable(*[t.to(device).contiguous() for t in inputs])

    return call
