"""Where gloo listens: one device per network interface."""

from __future__ import annotations

import os
import socket

from torch.distributed import ProcessGroupGloo

from hardpoint import TransportError
from hardpoint_gloo.options import Options
from hardpoint_gloo.origin import origin

# Read by PyTorch itself for its own gloo groups; users expect it to count here too.
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


def open_devices(options: Options) -> list[ProcessGroupGloo.Device]:
    """Open one listening device per interface, as ``options`` or the environment say.

    :raises TransportError: an interface or host name has no address on this machine.
    """
    if options.hostname:
        return [_open(hostname=options.hostname, asked=f"host name {options.hostname!r}")]
    interfaces = options.interface or os.environ.get(INTERFACE_VARIABLE, "")
    if interfaces:
        return [
            _open(interface=name, asked=f"network interface {name!r}")
            for name in interfaces.split(",")
        ]
    return [_open(asked="the host's own name")]


def _open(*, asked: str, hostname: str = "", interface: str = "") -> ProcessGroupGloo.Device:
    try:
        if interface:
            return ProcessGroupGloo.create_device(interface=interface)
        if hostname:
            return ProcessGroupGloo.create_device(hostname=hostname)
        return ProcessGroupGloo.create_default_device()
    except RuntimeError as error:
        known = ", ".join(name for _, name in socket.if_nameindex())
        raise TransportError(
            f"gloo cannot listen on {asked}",
            provider="transport:gloo",
            origin=origin(),
            cause=str(error).rpartition("] ")[2],  # drop gloo's "[enforce fail at file:line]"
            remedy=f"set the option 'interface' or {INTERFACE_VARIABLE}; this machine has {known}",
        ) from error
