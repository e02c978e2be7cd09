"""What ``hardpoint doctor`` runs in a process of its own: load and probe one provider.

The answer goes to a file, whole or not at all: what a plugin prints cannot damage it, and a crash
leaves none.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hardpoint.errors import HardpointError, ProviderDenied, ProviderIncompatible
from hardpoint.interfaces.kinds import Kind
from hardpoint.interfaces.probe import ProbeRequest
from hardpoint.registry.registry import Registry


def state_of(error: HardpointError) -> str:
    """How the doctor calls a provider that raised ``error``."""
    if isinstance(error, ProviderDenied):
        return "denied"
    return "incompatible" if isinstance(error, ProviderIncompatible) else "broken"


def examine(kind: Kind, name: str) -> dict[str, object]:
    """The state of one provider, with the reasons, as JSON-serializable data."""
    registry = Registry()
    try:
        info = registry.info(kind, name)
        probe = registry.probe(kind, name, ProbeRequest(deep=True))
    except HardpointError as error:
        return {"state": state_of(error), "error": error.to_json()}
    return {
        "state": "ready" if probe.available else "unavailable",
        "unverified": getattr(info, "unverified", ""),
        **asdict(probe),
    }


def main(kind: Kind, name: str, answer: str) -> None:
    """Examine one provider and write what was found to the file ``answer``."""
    text = json.dumps(examine(kind, name), default=str)
    path = Path(answer)
    partial = path.with_suffix(".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)
