"""The hooks of ``backend:cpu``: light, imports neither torch nor the rest of the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, hookimpl
from hardpoint_cpu import host


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="The CPU, through eager PyTorch, Inductor or AOTInductor",
        precisions=("fp32", "bf16"),
        options={
            "mode": "eager (default), inductor (compiles again where it is loaded) "
            "or aot (compiled once, needs no compiler where it is loaded)",
            "freezing": "inductor and aot: fold and repack the weights into the compiled code "
            "(default false); faster, and the weights are no longer shared",
        },
        strided_inputs=True,
        cpu_kernels=True,
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """Always ready; a missing C++ compiler takes away two modes, and the notes say so."""
    missing = host.compiler_missing()
    notes = () if missing is None else (f"modes inductor and aot cannot compile here: {missing}",)
    return Probe.ready(host.device(), notes=notes)


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import torch and return the backend. ``config`` may hold ``operators``: see the README."""
    from hardpoint_cpu.backend import CpuBackend

    return CpuBackend(config)
