"""The hooks of ``backend:metal``: light, imports neither torch nor the rest of the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, hookimpl
from hardpoint_metal import system
from hardpoint_metal.options import HELP, UNVERIFIED


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="The GPU of a Mac, through PyTorch's MPS: eager, Inductor or AOTInductor",
        precisions=("fp32", "bf16", "fp16"),
        options=HELP,
        variants={"inductor": {"mode": "inductor"}, "aot": {"mode": "aot"}},
        strided_inputs=True,
        unverified=UNVERIFIED,
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """The system, then PyTorch's build, then the device."""
    return system.probe()


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import torch and return the backend. ``config`` may hold ``operators``: see the README.

    :raises ProviderUnavailable: there is no device, or a silent fallback was asked for.
    """
    system.mac()
    from hardpoint_metal.backend import MetalBackend

    return MetalBackend(config)
