"""Open an artifact with the backend that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardpoint.errors import ArtifactError, ContractViolation, HardpointError
from hardpoint.interfaces.backend import Artifact, Backend, Executable
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device
from hardpoint.runtime.faults import translated
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


def open_artifact(
    segment_id: str,
    target: Target,
    device: Device,
    artifact: Artifact,
    backend: Backend,
    registry: Registry,
) -> OpenedSegment:
    """Load an artifact with its backend.

    :param backend: of ``target``, opened.
    :raises ArtifactError: it does not fit this device, machine or version, with the reason.
    :raises RuntimeFault: out of memory, or the device was lost.
    """
    provider = f"backend:{target.backend}"
    origin = registry.record("backend", target.backend).origin
    try:
        executable = backend.load(artifact, device)
    except HardpointError as error:
        error.provider, error.origin = error.provider or provider, error.origin or origin
        raise
    except Exception as error:
        what = f"opening segment {segment_id} on {target}"
        fault = translated(error, what, provider=provider, origin=origin)
        if fault is not None:
            raise fault from error
        raise ArtifactError(
            f"the artifact of segment {segment_id} could not be opened on {target}",
            provider=provider, origin=origin,
            cause=f"{type(error).__name__}: {str(error)[:600]}",
            remedy="compile again on this machine",
        ) from error  # fmt: skip
    if not isinstance(executable, Executable):
        raise ContractViolation(
            "a backend's load() broke the contract", provider=provider, origin=origin,
            cause=f"it returned {type(executable).__name__}, not Executable",
            remedy="report it to the plugin's author",
        )  # fmt: skip
    info = registry.info("backend", target.backend)
    return OpenedSegment(
        segment_id, target, device, provider, origin, artifact, executable,
        strided=info.strided_inputs, alignment=info.alignment,
    )  # fmt: skip
