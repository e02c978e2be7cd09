"""The hooks of ``backend:rocm``: light, imports neither torch nor the rest of the plugin.

PyTorch's builds for ROCm answer ``torch.cuda.*``, so that hardpoint-cuda's modules do the work.
"""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, hookimpl
from hardpoint_cuda.options import HELP
from hardpoint_cuda.plugin import VARIANTS
from hardpoint_cuda.vendor import ALIGNMENT
from hardpoint_rocm.vendor import ROCM, UNVERIFIED


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    mode = "eager (default), inductor (compiled where it is loaded) or aot (compiled once)"
    return BackendInfo(
        requires_api=(1, 0),
        summary="AMD GPUs, through eager PyTorch, Inductor or AOTInductor on HIP",
        precisions=("fp32", "bf16", "fp16", "int8w"),
        options={**HELP, "mode": mode},
        variants=VARIANTS,
        strided_inputs=True,
        alignment=ALIGNMENT,
        unverified=UNVERIFIED,
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """PyTorch's build, then the driver's list, and a child that starts HIP; never this process."""
    from hardpoint_cuda import probing
    from hardpoint_rocm import topology

    return probing.probe(ROCM, topology.listing, deep=request.deep)


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Start HIP and return the backend. ``config`` may hold ``operators``: see the README.

    :raises ProviderUnavailable: there is nothing to start.
    """
    from hardpoint_cuda import probing
    from hardpoint_rocm import topology

    probing.require(ROCM, topology.listing)
    from hardpoint_cuda.backend import GpuBackend

    return GpuBackend(config, ROCM, topology.listing)
