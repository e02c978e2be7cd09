"""Probe and open a provider, here or on a machine that lacks everything."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardpoint import HardpointError, Kind, Probe, ProbeRequest, ProviderUnavailable, Registry


def main(kind: Kind, name: str, config: str, machine: str = "") -> dict[str, Any]:
    """The answers to a shallow and a deep probe, and how open went.

    :param machine: ``"bare"``: nothing in home and PATH, no accelerator, no folder to write to.
    """
    if machine == "bare":
        _strip()
    registry = Registry()
    registry.load(kind, name)
    shallow = _probe(registry, kind, name, deep=False)
    deep = _probe(registry, kind, name, deep=True)
    # Other checks open it where it is available.
    asked = machine == "bare" or not deep.get("available")
    opened = _open(registry, kind, name, json.loads(config)) if asked else None
    return {"shallow": shallow, "deep": deep, "open": opened}


def _strip() -> None:
    # Here, not before the start: what is installed for this user only must still be found.
    home = Path.cwd() / "home"
    home.mkdir()
    for folder in (home, Path.cwd()):
        folder.chmod(0o555)
    for variable in [name for name in os.environ if name.startswith("XDG_")]:
        del os.environ[variable]
    os.environ["HOME"] = os.environ["PATH"] = str(home)
    for variable in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        os.environ[variable] = ""


def _probe(registry: Registry, kind: Kind, name: str, *, deep: bool) -> dict[str, Any]:
    try:
        probe = registry.probe(kind, name, ProbeRequest(deep=deep))
        return {"raised": "", **plain(probe)}
    except HardpointError as error:
        return {"raised": f"{type(error).__name__}: {error}"}


def plain(probe: Probe) -> dict[str, Any]:
    """The answer as JSON-serializable data."""
    devices = []
    for device in probe.devices:
        facts = asdict(device)
        try:
            json.dumps(facts)
        except (TypeError, ValueError) as error:
            facts["properties"] = f"not JSON-serializable: {error}"
        devices.append(facts)
    return {
        "available": probe.available,
        "reason": probe.reason,
        "remedy": probe.remedy,
        "devices": devices,
        "notes": list(probe.notes),
    }


def _open(registry: Registry, kind: Kind, name: str, config: dict[str, Any]) -> dict[str, Any]:
    try:
        registry.open(kind, name, config)
    except ProviderUnavailable as error:
        return {"how": "unavailable", "words": str(error), "cause": error.cause or error.remedy}
    except HardpointError as error:
        return {"how": type(error).__name__, "words": str(error)}
    return {"how": "works", "words": ""}
