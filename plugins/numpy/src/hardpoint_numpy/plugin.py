"""What hardpoint reads first: light on purpose, so that looking at the plugin imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hardpoint import ConfigError, Probe, ProbeRequest, Serializer, SerializerInfo, hookimpl
from hardpoint_numpy.refuse import refuse


@hookimpl
def hardpoint_serializer_info() -> SerializerInfo:
    """Reads and writes both of NumPy's formats."""
    return SerializerInfo(
        requires_api=(1, 0),
        summary="NumPy's .npz and .npy: mapped, sliced, saved atomically; never unpickled",
        suffixes=(".npz", ".npy"),
    )


@hookimpl
def hardpoint_serializer_probe(request: ProbeRequest) -> Probe:
    """Files are mapped as they are, little-endian; saving needs POSIX file locks."""
    if sys.byteorder != "little":
        return Probe.unavailable("arrays are mapped as little-endian, and this machine is not")
    if os.name != "posix":
        return Probe.unavailable(f"atomic saving is written for POSIX systems, not {os.name!r}")
    return Probe.ready()


@hookimpl
def hardpoint_serializer_open(config: Mapping[str, object]) -> Serializer:
    """The serializer. It has no options.

    :raises ConfigError: ``config`` names one.
    """
    if config:
        raise ConfigError(
            f"unknown option(s): {', '.join(sorted(map(repr, config)))}",
            provider=refuse.provider,
            origin=refuse.origin,
            remedy="the numpy serializer has no options: leave config empty",
        )
    from hardpoint_numpy.serializer import NumpySerializer

    return NumpySerializer()
