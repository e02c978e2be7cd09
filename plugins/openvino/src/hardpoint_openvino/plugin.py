"""The hooks of ``backend:openvino``: light, imports neither torch nor OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from hardpoint import (
    Backend,
    BackendInfo,
    Device,
    Probe,
    ProbeRequest,
    ProviderUnavailable,
    hookimpl,
)

REMEDY = "pip install openvino"
UNVERIFIED = "GPU and NPU devices are unverified on hardware"


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="Intel CPUs, GPUs and NPUs, and other x86 and Arm CPUs, through OpenVINO",
        precisions=("fp32", "bf16", "fp16", "int8", "int8w", "int4w"),
        options={
            "hint": "latency (default) or throughput: what OpenVINO sets its streams for",
            "threads": "threads to compute on; default: all cores that OpenVINO sees",
            "streams": "calls that may run at once inside; default: 1, or OpenVINO's choice for "
            "throughput",
            "pinning": "bind threads to cores (true or false); default: OpenVINO's choice",
            "blob": "keep the compiled model in the artifact too: starts sooner on this very kind "
            "of machine, and is larger by the weights (default false)",
            "dynamic_quantization": "int8w and int4w: quantize activations to int8 in groups of so "
            "many; 0 (default): compute in float32",
            "floats": "int8, int8w and int4w: what is not quantized computes in fp32 (default), "
            "bf16 or fp16",
            "fold": "compute what is constant, such as weights with their batch norm, when the "
            "segment is compiled: starts sooner, and such weights are in the artifact once more "
            "(default true)",
            "group_size": "int4w: weights that share a scale (default 64)",
            "model_type": "int8: auto (default), transformer or plain: which quantization scheme",
            "preset": "int8: mixed (default: asymmetric activations) or performance (symmetric)",
        },
        variants={
            "throughput": {"hint": "throughput"},
            "bf16 beside integers": {"floats": "bf16"},
            "dynamic quantization": {"dynamic_quantization": 32},
        },
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """Ready where OpenVINO is installed; a deep probe asks it for its devices."""
    missing = _missing()
    if missing:
        return Probe.unavailable(missing, remedy=REMEDY)
    if not request.deep:
        return Probe.ready(Device("CPU", "the processor"))
    try:
        from hardpoint_openvino import sdk

        devices = sdk.devices()
    except Exception as error:  # a driver's; the probe answers
        return Probe.unavailable(
            f"OpenVINO {version('openvino')} does not start: {type(error).__name__}: {error}",
            remedy="pip install --force-reinstall openvino",
        )
    if not devices:
        return Probe.unavailable(
            "OpenVINO finds no device", remedy="look at its system requirements"
        )
    others = [d.id for d in devices if not d.id.startswith("CPU")]
    notes = (f"{', '.join(others)}: unverified on hardware",) if others else ()
    return Probe.ready(*devices, notes=notes)


def _missing() -> str:
    """Why OpenVINO cannot be imported, or ``""``."""
    try:
        version("openvino")
    except PackageNotFoundError:
        return "the package openvino is not installed"
    return "" if find_spec("openvino") else "the package openvino has no module openvino"


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import OpenVINO and return the backend. It has no configuration."""
    missing = _missing()
    if missing:
        raise ProviderUnavailable(
            "the openvino backend cannot be opened", cause=missing, remedy=REMEDY
        )
    from hardpoint_openvino.backend import OpenVinoBackend

    return OpenVinoBackend(config)
