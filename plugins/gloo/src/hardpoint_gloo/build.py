"""What this build of PyTorch and this machine offer to gloo. Imports torch on demand only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lack:
    """What is missing, and what the user can do about it."""

    reason: str
    remedy: str


def lack() -> Lack | None:
    """What keeps this build of PyTorch from making gloo groups, if anything."""
    import torch
    import torch.distributed as dist

    built = f"torch {torch.__version__} was built without"
    remedy = "install an official PyTorch wheel: https://pytorch.org/get-started/locally"
    if not dist.is_available():
        return Lack(f"{built} torch.distributed", remedy)
    if not dist.is_gloo_available():
        return Lack(f"{built} gloo", remedy)
    return None


def network_lack() -> Lack | None:
    """What keeps gloo from listening on this machine, if anything. Opens a socket."""
    from hardpoint import TransportError
    from hardpoint_gloo.devices import open_devices
    from hardpoint_gloo.options import Options

    try:
        open_devices(Options())
    except TransportError as error:
        return Lack(error.cause or error.what, error.remedy)
    return None
