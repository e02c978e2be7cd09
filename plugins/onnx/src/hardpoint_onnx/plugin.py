"""What hardpoint reads first: light on purpose, so that looking at the plugin imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from hardpoint import ConfigError, Probe, ProbeRequest, Serializer, SerializerInfo, hookimpl
from hardpoint_onnx.refuse import refuse


@hookimpl
def hardpoint_serializer_info() -> SerializerInfo:
    """Reads the weights of ONNX models, and writes none."""
    return SerializerInfo(
        requires_api=(1, 0),
        summary="the weights of ONNX models: initializers, and external data mapped beside them",
        suffixes=(".onnx",),
        can_save=False,
    )


@hookimpl
def hardpoint_serializer_probe(request: ProbeRequest) -> Probe:
    """Files are mapped as they are, little-endian; they are read as POSIX systems read."""
    if sys.byteorder != "little":
        return Probe.unavailable("files are mapped as little-endian, and this machine is not")
    if os.name != "posix":
        return Probe.unavailable(f"files are read as POSIX systems read them, not {os.name!r}")
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
            remedy="the onnx serializer has no options: leave config empty",
        )
    from hardpoint_onnx.serializer import OnnxSerializer

    return OnnxSerializer()
