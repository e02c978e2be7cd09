"""OpenVINO itself: the one ``Core`` of the process, its devices and its version."""

from __future__ import annotations

import functools
import os
from typing import Any

from hardpoint import Device, did_you_mean
from hardpoint_openvino.origin import in_words
from hardpoint_openvino.runtime import ov

# Devices of OpenVINO's that compose others are ways to choose, and choosing is the host's.
_COMPOSED = ("AUTO", "MULTI", "HETERO", "BATCH")


@functools.cache
def core() -> ov.Core:
    """The process's core: plugins of devices are loaded once."""
    return ov.Core()


def version() -> str:
    """The release and build, e.g. ``2026.4.1-22982-...``."""
    return str(ov.get_version())


def _ask(device: str, name: str) -> Any:
    """A property of a device, ``None`` where it has no such property."""
    try:
        return core().get_property(device, name)
    except RuntimeError:
        return None


def capabilities(device: str) -> tuple[str, ...]:
    """What a device computes in, in OpenVINO's words: ``FP32``, ``BF16``, ``FP16``, ``INT8``..."""
    return tuple(str(c) for c in _ask(device, "OPTIMIZATION_CAPABILITIES") or ())


def settable(device: str) -> frozenset[str]:
    """The names of the properties that a compilation for this device can be given."""
    supported = _ask(device, "SUPPORTED_PROPERTIES") or {}
    return frozenset(str(n) for n, access in supported.items() if str(access) == "RW")


def full_name(device: str) -> str:
    """The device's name for people, which a compiled blob is tied to."""
    return str(_ask(device, "FULL_DEVICE_NAME") or device)


def devices() -> tuple[Device, ...]:
    """The devices that OpenVINO finds, the CPU first; ids are OpenVINO's, with ``.`` as there."""
    names = [n for n in core().available_devices if not n.startswith(_COMPOSED)]
    names.sort(key=lambda n: (not n.startswith("CPU"), not n.startswith("GPU"), n))
    return tuple(_described(name) for name in names)


def _described(name: str) -> Device:
    memory = _ask(name, "GPU_DEVICE_TOTAL_MEM_SIZE") if name.startswith("GPU") else None
    if name.startswith("CPU"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(
        id=name,
        name=full_name(name),
        torch_device="cpu",
        memory=int(memory) if memory else None,
        properties={"openvino": version(), "computes_in": list(capabilities(name))},
    )


def unknown(device: Device) -> tuple[str, str] | None:
    """What is wrong with ``device`` and what to do, or ``None`` where OpenVINO has it."""
    try:
        known = [d for d in core().available_devices if not d.startswith(_COMPOSED)]
    except RuntimeError as error:
        return f"OpenVINO finds no device: {in_words(error)}", "look at its drivers"
    if device.id in known:
        return None
    return f"OpenVINO has no device {device.id!r} here", did_you_mean(device.id, known)
