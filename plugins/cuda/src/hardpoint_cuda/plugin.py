"""The hooks of ``backend:cuda``: light, imports neither torch nor the rest of the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, hookimpl
from hardpoint_cuda.options import HELP
from hardpoint_cuda.vendor import ALIGNMENT, CUDA, UNVERIFIED

VARIANTS: Mapping[str, Mapping[str, object]] = {
    "graphs": {"graphs": True},
    "inductor": {"mode": "inductor"},
    "inductor-graphs": {"mode": "inductor", "graphs": True},
    "aot": {"mode": "aot"},
}
# NVIDIA's alone. fp8 weights mean something in int8w only, and are refused at once elsewhere.
# Compiled, the cast of a weight is part of its product; eager PyTorch writes the weight out first.
_NVIDIA: Mapping[str, Mapping[str, object]] = {
    "tensorrt": {"mode": "tensorrt"},
    "fp8 weights": {"weights": "fp8"},
    "inductor with fp8 weights": {"mode": "inductor", "weights": "fp8"},
}


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="NVIDIA GPUs, through eager PyTorch, Inductor, AOTInductor or TensorRT",
        precisions=("fp32", "bf16", "fp16", "int8w"),
        options=HELP,
        variants={**VARIANTS, **_NVIDIA},
        strided_inputs=True,
        alignment=ALIGNMENT,
        unverified=UNVERIFIED,
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """PyTorch's build, then NVML, and a child process that starts CUDA; never this process."""
    from hardpoint_cuda import probing

    return probing.probe(CUDA, probing.nvidia, deep=request.deep)


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Start CUDA and return the backend. ``config`` may hold ``operators``: see the README.

    :raises ProviderUnavailable: there is nothing to start.
    """
    from hardpoint_cuda import probing

    probing.require(CUDA, probing.nvidia)
    from hardpoint_cuda.backend import GpuBackend

    return GpuBackend(config, CUDA, probing.nvidia)
