"""Which device a target names. Light: loading a package needs this, and none of the planner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardpoint.errors import PlanError, ProviderUnavailable, did_you_mean
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.probe import Device

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


def find_device(registry: Registry, target: Target) -> Device:
    """The device that ``target`` names.

    :raises ProviderUnavailable: the backend is not available here, or has no such device.
    """
    provider = f"backend:{target.backend}"
    if target.rank is not None:
        raise PlanError(
            f"target {target} names a rank", remedy="plan each rank's program in its own process"
        )
    probe = registry.probe("backend", target.backend)
    if not probe.available:
        raise ProviderUnavailable(
            f"target {target} is not available here", provider=provider,
            origin=registry.record("backend", target.backend).origin,
            cause=probe.reason, remedy=probe.remedy or "choose another target",
        )  # fmt: skip
    if not target.device and probe.devices:
        return probe.devices[0]
    for device in probe.devices:
        if device.id == target.device:
            return device
    raise ProviderUnavailable(
        f"target {target} names a device that is not here", provider=provider,
        origin=registry.record("backend", target.backend).origin,
        cause=f"devices found: {', '.join(d.id for d in probe.devices) or 'none'}",
        remedy=did_you_mean(target.device, [d.id for d in probe.devices]),
    )  # fmt: skip
