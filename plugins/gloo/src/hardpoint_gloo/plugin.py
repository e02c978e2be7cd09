"""The hooks of ``transport:gloo``: light, imports neither torch nor the rest of the plugin."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import Probe, ProbeRequest, Transport, TransportInfo, hookimpl


@hookimpl
def hardpoint_transport_info() -> TransportInfo:
    """What this transport is and can do."""
    return TransportInfo(
        requires_api=(1, 0),
        summary="PyTorch's gloo over TCP, for tensors on the CPU",
        devices=("cpu",),
        collectives=(
            "all_gather",
            "all_gather_into_tensor",
            "all_reduce",
            "all_to_all",
            "all_to_all_single",
            "barrier",
            "broadcast",
            "gather",
            "recv",
            "reduce",
            "reduce_scatter",
            "reduce_scatter_tensor",
            "scatter",
            "send",
        ),
    )


@hookimpl
def hardpoint_transport_probe(request: ProbeRequest) -> Probe:
    """Whether this build of PyTorch has gloo; if ``deep``, also whether it finds a network."""
    from hardpoint_gloo import build

    lack = build.lack()
    if lack is None and request.deep:
        lack = build.network_lack()
    return Probe.ready() if lack is None else Probe.unavailable(lack.reason, remedy=lack.remedy)


@hookimpl
def hardpoint_transport_open(config: Mapping[str, object]) -> Transport:
    """Import torch and return the transport. ``config``: interface, hostname, threads.

    :raises ConfigError: an option that does not exist, or a value it cannot have.
    :raises ProviderUnavailable: PyTorch was built without gloo.
    """
    from hardpoint import ProviderUnavailable
    from hardpoint_gloo import build
    from hardpoint_gloo.options import Options
    from hardpoint_gloo.origin import origin

    options = Options.parse(config)
    lack = build.lack()
    if lack is not None:
        raise ProviderUnavailable(
            "gloo cannot work on this machine",
            provider="transport:gloo",
            origin=origin(),
            cause=lack.reason,
            remedy=lack.remedy,
        )
    from hardpoint_gloo.transport import GlooTransport

    return GlooTransport(options)
