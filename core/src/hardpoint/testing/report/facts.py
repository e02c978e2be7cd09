"""What a report says of the provider itself, and of the machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypedDict

from hardpoint import __version__
from hardpoint.errors import HardpointError
from hardpoint.interfaces.kinds import API_MAJOR, API_MINOR
from hardpoint.testing.process import run_python
from hardpoint.testing.subject import Subject

_SECONDS = 120.0

_ASK = """
import sys
from hardpoint.testing.report.facts import answers
from hardpoint.testing.subject import Subject, split_key
answer(answers(Subject(*split_key(sys.argv[1]))))
"""


class Facts(TypedDict):
    """What is known of a provider before any check.

    ``unavailable``: its own reason why it cannot work on this machine, or why it could not say;
    ``""`` where it can.
    """

    provider: str
    kind: str
    distribution: str
    version: str
    unavailable: str
    info: dict[str, Any]
    environment: dict[str, str]


def facts(subject: Subject, *, isolated: bool = False) -> Facts:
    """The facts of a provider.

    :param isolated: ask the provider in a process of its own, which it may crash.
    """
    if isolated:
        done = run_python(_ASK, subject.key, timeout=_SECONDS)
        said = done.answer or {"unavailable": f"it could not be asked: {done.ending}", "info": {}}
    else:
        said = answers(subject)
    record = subject.record
    return Facts(
        provider=subject.key,
        kind=subject.kind,
        distribution=record.dist,
        version=record.version,
        unavailable=str(said["unavailable"]),
        info=dict(said["info"]),
        environment=environment(),
    )


def answers(subject: Subject) -> dict[str, Any]:
    """What the provider itself says: loads and probes it."""
    try:
        info = subject.info
        reason = "" if subject.probe.available else subject.probe.reason
    except HardpointError as error:
        return {"unavailable": f"{type(error).__name__}: {error.cause or error.what}", "info": {}}
    # Field by field: a vendor may give any Mapping, and some of those cannot be copied.
    names = [f.name for f in fields(info)] if is_dataclass(info) else []
    return {"unavailable": reason, "info": {name: _plain(getattr(info, name)) for name in names}}


def _plain(value: object) -> object:
    """``value`` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def environment() -> dict[str, str]:
    """What the run stands on."""
    return {
        "hardpoint": __version__,
        "contract": f"{API_MAJOR}.{API_MINOR}",
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
    }
