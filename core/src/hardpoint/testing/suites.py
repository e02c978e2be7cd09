"""The suite of each kind."""

from __future__ import annotations

import importlib
from collections.abc import Collection

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.kinds import Kind
from hardpoint.testing.check import Check, checks_of
from hardpoint.testing.settings import Settings

# Class -> module; imported when asked for, since a suite imports torch and its models.
SUITES = {
    "BackendSuite": "hardpoint.testing.backend",
    "PartitionerSuite": "hardpoint.testing.partitioner",
    "SerializerSuite": "hardpoint.testing.serializer",
    "TransportSuite": "hardpoint.testing.transport",
}


def suite_of(kind: Kind) -> type:
    """The suite class of a kind."""
    name = f"{kind.capitalize()}Suite"
    found: type = getattr(importlib.import_module(SUITES[name]), name)
    return found


def checks_of_kind(kind: Kind) -> list[Check]:
    """Every check that a provider of ``kind`` is put to, by level."""
    return checks_of(suite_of(kind))


def refuse_unknown_failures(settings: Settings, kind: Kind) -> None:
    """Expected failures name checks of the kind, or operators; a misspelt one would hide nothing.

    :raises ConfigError: with the nearest name there is.
    """
    if not settings.expected_failures:  # importing a suite takes seconds
        return
    known = [check.name for check in checks_of_kind(kind)]
    for name in settings.expected_failures:
        if name not in known and not (kind == "backend" and name.startswith("operator:")):
            raise ConfigError(
                f"{settings.path} expects {name!r} to fail, which is no check of a {kind}",
                remedy=did_you_mean(name, known),
            )


def is_complete(kind: Kind, found: Collection[str]) -> bool:
    """Whether every check of the kind is among ``found``."""
    return all(check.name in found for check in checks_of_kind(kind))
