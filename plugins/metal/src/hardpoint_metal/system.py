"""The Mac, and what its version of macOS can do."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from hardpoint import Device, Probe, ProviderUnavailable
from hardpoint_metal.options import ORIGIN, PROVIDER

FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"


@dataclass(frozen=True, slots=True)
class Mac:
    """What artifacts are bound to.

    :param macos: its version, e.g. ``(14, 5)``. :param chip: e.g. ``"Apple M3"``.
    """

    macos: tuple[int, ...]
    chip: str
    torch: str


def macos() -> tuple[int, ...]:
    """This system's version; empty where it is no macOS."""
    return tuple(int(part) for part in platform.mac_ver()[0].split(".") if part.isdigit())


def fallback_asked() -> str:
    """Why the environment's wish cannot be granted; ``""`` where it has none."""
    value = os.environ.get(FALLBACK, "")
    if value in ("", "0"):
        return ""
    return f"{FALLBACK}={value} lets PyTorch compute on the CPU, in silence, what Metal lacks"


def probe() -> Probe:
    """Ask; never raises for what is missing. Imports torch on a Mac only."""
    if sys.platform != "darwin":
        return Probe.unavailable(
            f"Metal is macOS's, this is {sys.platform}", remedy="choose another target"
        )
    asked = fallback_asked()
    if asked:
        return Probe.unavailable(
            asked,
            remedy=f"unset {FALLBACK}; name the target for the rest yourself: "
            "targets=['metal', 'cpu']",
        )
    try:
        import torch
    except ImportError as error:
        return Probe.unavailable(f"PyTorch is not installed ({error})")
    if not torch.backends.mps.is_built():
        return Probe.unavailable(
            f"PyTorch {torch.__version__} is built without MPS",
            remedy="install PyTorch's wheel for macOS on Apple silicon",
        )
    if not torch.backends.mps.is_available():
        found = ".".join(map(str, macos()))
        return Probe.unavailable(
            f"PyTorch has MPS, and macOS {found} on {platform.machine()} offers it no device",
            remedy="MPS needs macOS 14 and a GPU; a virtual machine may have none",
        )
    return Probe.ready(device())


def device() -> Device:
    """The one GPU of a Mac, which shares the processor's memory."""
    import torch

    properties = {"macos": list(macos()), "cores": torch.backends.mps.get_core_count()}
    # Metal's advice on how much of the shared memory a program should use.
    memory = torch.mps.recommended_max_memory()
    return Device("0", torch.backends.mps.get_name(), "mps:0", memory, properties)


def mac() -> Mac:
    """This machine.

    :raises ProviderUnavailable: there is no device, or a silent fallback was asked for.
    """
    found = probe()
    if not found.available:
        raise ProviderUnavailable(
            "the metal backend cannot be used here",
            provider=PROVIDER,
            origin=ORIGIN,
            cause=found.reason,
            remedy=found.remedy,
        )
    import torch

    return Mac(macos(), torch.backends.mps.get_name(), torch.__version__)
