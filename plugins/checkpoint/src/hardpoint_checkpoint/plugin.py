"""What hardpoint reads first: light on purpose, so that looking at the plugin imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hardpoint import ConfigError, Probe, ProbeRequest, Serializer, SerializerInfo, hookimpl
from hardpoint_checkpoint.refuse import refuse


@hookimpl
def hardpoint_serializer_info() -> SerializerInfo:
    """Reads what torch.save writes; writes nothing."""
    return SerializerInfo(
        requires_api=(1, 0),
        summary="PyTorch checkpoints (.pt, .pth, .bin, .ckpt), read without running anything",
        suffixes=(".pt", ".pth", ".bin", ".ckpt", ".bin.index.json"),
        can_save=False,
    )


@hookimpl
def hardpoint_serializer_probe(request: ProbeRequest) -> Probe:
    """Little-endian files are mapped as they are, by POSIX calls."""
    if sys.byteorder != "little":
        return Probe.unavailable("checkpoints are read as little-endian, and this machine is not")
    if os.name != "posix":
        return Probe.unavailable(f"files are mapped by POSIX calls, and this is {os.name!r}")
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
            remedy="the checkpoint serializer has no options: leave config empty",
        )
    from hardpoint_checkpoint.serializer import CheckpointSerializer

    return CheckpointSerializer()
