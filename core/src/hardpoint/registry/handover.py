"""What a child process needs to know so that its registry is like its parent's; plain JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hardpoint.registry.policy import Policy
from hardpoint.registry.registry import Registry


def describe(registry: Registry, backends: Iterable[str]) -> dict[str, Any]:
    """Policy, lock and the configurations of these backends. What was added in this process cannot
    be handed over: no child finds it.
    """
    policy = registry.policy
    return {
        "allow": None if policy.allow is None else list(policy.allow),
        "deny": list(policy.deny),
        "override": list(policy.override),
        "lock": None if registry.lock is None else str(registry.lock.absolute()),
        "configs": {name: dict(registry.configuration("backend", name)) for name in backends},
    }


def rebuild(data: Mapping[str, Any]) -> Registry:
    """A registry by what :func:`describe` gave."""
    allow = None if data["allow"] is None else tuple(data["allow"])
    policy = Policy(allow=allow, deny=tuple(data["deny"]), override=tuple(data["override"]))
    registry = Registry(policy=policy, lock=None if data["lock"] is None else Path(data["lock"]))
    for name, config in data["configs"].items():
        if config:
            registry.configure("backend", name, config)
    return registry
