"""Use an opened provider a little, as any host may at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from hardpoint import (
    Backend,
    Costs,
    Device,
    HardpointError,
    Kind,
    Partitioner,
    ProviderFailed,
    Registry,
    Serializer,
    Support,
    Target,
    TargetInfo,
    Transport,
)


class Broken(Exception):  # noqa: N818 - never leaves the process that raises it
    """It does not do what its contract says."""


def load_and_open(registry: Registry, kind: Kind, name: str, config: dict[str, Any]) -> Any:
    """Load it, probe it and open it; ``None`` where it is unavailable here."""
    registry.load(kind, name)
    if not registry.probe(kind, name).available:
        return None
    return registry.open(kind, name, config)


def prepare(kind: Kind) -> Any:
    """What :func:`use` needs of a kind, beside the provider: made once, by one thread."""
    if kind != "partitioner":
        return None
    import torch

    from hardpoint import capture

    return capture(torch.nn.ReLU().eval(), (torch.ones(2),)).exported


def use(provider: Any, prepared: Any) -> None:
    """One small question to an opened provider.

    :raises Broken: the answer is none that its contract allows.
    """
    if isinstance(provider, Backend):
        devices = provider.devices()
        if not devices or not all(isinstance(device, Device) for device in devices):
            raise Broken(f"devices() gave {devices!r}; an available backend has at least one")
    elif isinstance(provider, Serializer):
        answer: object = provider.recognizes(Path(__file__))
        if not isinstance(answer, bool):
            raise Broken(f"recognizes() gave {answer!r}, no bool")
    elif isinstance(provider, Partitioner):
        _partition(provider, prepared)
    elif isinstance(provider, Transport):
        _join_alone(provider)


def _partition(partitioner: Partitioner, exported: Any) -> None:
    from hardpoint.planning import compute_nodes

    names = [node.name for node in compute_nodes(exported)]
    target = TargetInfo(Target("host"), Device("0", "host"), Support(frozenset(names)))
    chosen = partitioner.partition(exported, [target], "latency", Costs()).targets
    if dict(chosen) != dict.fromkeys(names, target.target):
        raise Broken(f"partition() gave {dict(chosen)!r} for {names} and the one target 'host'")


def _join_alone(transport: Transport) -> None:
    from torch._C._distributed_c10d import HashStore
    from torch.distributed import ProcessGroup

    group: object = transport.process_group(HashStore(), 0, 1, timedelta(seconds=30))
    if not isinstance(group, ProcessGroup):
        raise Broken(f"process_group() of one rank gave {group!r}, no ProcessGroup")


def outcome(registry: Registry, kind: Kind, name: str, config: dict[str, Any]) -> dict[str, str]:
    """How loading, opening and using went: ``works``, ``unavailable``, ``refused`` in words of its
    own, or ``failed``; and what was said.
    """
    try:
        provider = load_and_open(registry, kind, name, config)
        if provider is None:
            return {"how": "unavailable", "words": registry.probe(kind, name).reason}
        use(provider, prepare(kind))
    except HardpointError as error:
        raw = isinstance(error, ProviderFailed)
        return {"how": "failed" if raw else "refused", "words": str(error)}
    except BaseException as error:
        return {"how": "failed", "words": f"{type(error).__name__}: {error}"}
    return {"how": "works", "words": ""}
