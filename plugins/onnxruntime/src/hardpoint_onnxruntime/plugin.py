"""The hooks of ``backend:onnxruntime``: light, imports neither torch nor ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, Probe, ProbeRequest, ProviderUnavailable, hookimpl
from hardpoint_onnxruntime import plugins, providers
from hardpoint_onnxruntime.options import HELP, VARIANTS
from hardpoint_onnxruntime.origin import ORIGIN, PROVIDER, in_words


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="ONNX Runtime, on the execution providers of the installed wheel",
        precisions=("fp32", "fp16", "int8", "int8w", "int4w"),
        options=HELP,
        variants=VARIANTS,
        strided_inputs=False,
        cpu_kernels=False,
        unverified="only the CPU's execution provider was ever run; the others follow their "
        "documentation",
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """Ready where some wheel of ONNX Runtime can be imported."""
    if not providers.installed():
        return Probe.unavailable(
            "no wheel of ONNX Runtime is installed",
            remedy="pip install 'hardpoint-onnxruntime[cpu]', or onnxruntime-gpu (or another of "
            "its wheels) for an accelerator; only one of them at a time",
        )
    try:
        import onnxruntime

        available = list(onnxruntime.get_available_providers())
        failed = plugins.register()
        registered = plugins.found()
    except Exception as error:
        return Probe.unavailable(
            f"ONNX Runtime is installed and cannot be imported: {in_words(error, 300)}",
            remedy="reinstall one of its wheels; two of them overwrite each other's files",
        )
    return Probe.ready(
        *providers.devices(available, registered), notes=(*providers.notes(available), *failed)
    )


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import torch and ONNX Runtime, and return the backend.

    :raises ProviderUnavailable: with the probe's reason.
    """
    found = hardpoint_backend_probe(ProbeRequest())
    if not found.available:
        raise ProviderUnavailable(
            "backend:onnxruntime is not available here",
            provider=PROVIDER,
            origin=ORIGIN,
            cause=found.reason,
            remedy=found.remedy,
        )
    from hardpoint_onnxruntime.backend import OrtBackend

    return OrtBackend(found.devices, config)
