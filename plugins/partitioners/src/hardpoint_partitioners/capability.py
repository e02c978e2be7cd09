"""Provider ``partitioner:capability``: light; what is heavy is imported in ``open``."""

from __future__ import annotations

from collections.abc import Mapping

from hardpoint import ConfigError, Partitioner, PartitionerInfo, Probe, ProbeRequest, hookimpl


@hookimpl
def hardpoint_partitioner_info() -> PartitionerInfo:
    """Greedy by preference; takes no costs, so every objective gets the same answer."""
    return PartitionerInfo(
        requires_api=(1, 0),
        summary="each operation on the first preferred target that supports it and has room",
        objectives=("latency", "throughput", "size", "memory"),
    )


@hookimpl
def hardpoint_partitioner_probe(request: ProbeRequest) -> Probe:
    """Needs nothing but PyTorch."""
    return Probe.ready()


@hookimpl
def hardpoint_partitioner_open(config: Mapping[str, object]) -> Partitioner:
    """:raises ConfigError: any option is given; there are none."""
    from hardpoint_partitioners.greedy import CapabilityPartitioner

    if config:
        raise ConfigError(
            f"the capability partitioner has no option {min(config)!r}",
            provider="partitioner:capability",
            remedy="leave the configuration empty",
        )
    return CapabilityPartitioner()
