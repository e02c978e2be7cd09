"""What hardpoint reads first: light on purpose, so that looking at the plugin imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hardpoint import ConfigError, Probe, ProbeRequest, Serializer, SerializerInfo, hookimpl
from hardpoint_dcp.refuse import refuse


@hookimpl
def hardpoint_serializer_info() -> SerializerInfo:
    """Reads directories that any number of ranks wrote; writes them as one rank does."""
    return SerializerInfo(
        requires_api=(1, 0),
        summary="torch.distributed.checkpoint directories: resharded, never unpickled",
        suffixes=(".dcp",),
    )


@hookimpl
def hardpoint_serializer_probe(request: ProbeRequest) -> Probe:
    """Tensors are little-endian and we map them as they are; saving needs POSIX file locks."""
    if sys.byteorder != "little":
        return Probe.unavailable("such checkpoints are little-endian, and this machine is not")
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
            remedy="the dcp serializer has no options: leave config empty",
        )
    from hardpoint_dcp.serializer import DcpSerializer

    return DcpSerializer()
