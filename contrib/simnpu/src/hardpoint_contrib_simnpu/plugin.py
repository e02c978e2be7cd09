"""The hooks of ``backend:simnpu``: light, imports neither torch nor numpy."""

from __future__ import annotations

import os
from collections.abc import Mapping

from hardpoint import Backend, BackendInfo, ConfigError, Probe, ProbeRequest, hookimpl
from hardpoint_contrib_simnpu.options import Settings

DISABLE = "SIMNPU_DISABLE"


@hookimpl
def hardpoint_backend_info() -> BackendInfo:
    """What this backend is and can do."""
    return BackendInfo(
        requires_api=(1, 0),
        summary="A simulated NPU: few operators, fp16 and int8, 4 MiB of scratchpad",
        precisions=("fp16", "int8"),
        strided_inputs=False,
        unverified="simulated: there is no such chip",
    )


@hookimpl
def hardpoint_backend_probe(request: ProbeRequest) -> Probe:
    """Always ready, unless the environment takes it away, so that tutorials can show it."""
    if os.environ.get(DISABLE, "0") not in ("", "0"):
        return Probe.unavailable(
            f"the simulated device is switched off: {DISABLE} is set",
            remedy=f"unset {DISABLE}",
        )
    try:
        settings = Settings.parse({})
    except ConfigError as error:
        return Probe.unavailable(error.what, remedy=error.remedy)
    return Probe.ready(*settings.all_devices(), notes=("simulated",))


@hookimpl
def hardpoint_backend_open(config: Mapping[str, object]) -> Backend:
    """Import torch and return the backend. ``config`` may hold ``devices`` and ``dram_mib``."""
    from hardpoint_contrib_simnpu.backend import SimNpu

    return SimNpu(config)
