"""The provider under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pytest

from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.interfaces.probe import Probe, ProbeRequest
from hardpoint.registry.record import Record
from hardpoint.registry.registry import Registry
from hardpoint.testing.settings import Settings


def split_key(key: str) -> tuple[Kind, str]:
    """``"backend:acme"`` as its parts.

    :raises ConfigError: it is not ``kind:name``.
    """
    kind, colon, name = key.partition(":")
    if not colon or not name or kind not in KINDS:
        hint = did_you_mean(kind, KINDS) if kind not in KINDS else ""
        raise ConfigError(
            f"{key!r} names no provider; {hint}".rstrip("; "),
            remedy="write kind:name, e.g. backend:cpu",
        )
    return kind, name


@dataclass(frozen=True, slots=True)
class Effort:
    """How much the kit shall do.

    :param samples: ``"quick"``: about a minute of operators; ``"full"``: all of the database.
    :param workers: processes that run operators side by side.
    :param cache: folder of remembered operator results, or ``""``.
    :param operators: only these of the database, by name; empty: as ``samples`` says.
    :param seconds: processor time that one operator may take; on the wall, three times that.
    """

    samples: str = "quick"
    workers: int = 2
    cache: str = ""
    operators: tuple[str, ...] = ()
    seconds: float = 60.0


@dataclass(eq=False)
class Subject:
    """One provider, as a host sees it: through a registry, by its name.

    ``registry`` is the kit's own, with the policy of environment and config file. Nothing is
    loaded or opened before a check asks. A check that takes long calls
    ``progress(done, total, what)`` as it goes: that is shown, and tells it from one that hangs.
    """

    kind: Kind
    name: str
    settings: Settings = field(default_factory=Settings)
    effort: Effort = field(default_factory=Effort)
    registry: Registry = field(default_factory=Registry)
    progress: Callable[[int, int, str], None] = field(default=lambda done, total, what: None)

    def __post_init__(self) -> None:
        if self.settings.config:
            self.registry.configure(self.kind, self.name, self.settings.config)

    @property
    def key(self) -> str:
        """``kind:name``."""
        return f"{self.kind}:{self.name}"

    @property
    def record(self) -> Record:
        """What discovery knows of it."""
        return self.registry.record(self.kind, self.name)

    @property
    def info(self) -> Any:
        """What it says it is; loads it."""
        return self.registry.info(self.kind, self.name)

    @cached_property
    def probe(self) -> Probe:
        """Its answer, asked once, deep."""
        return self.registry.probe(self.kind, self.name, ProbeRequest(deep=True))

    def require_available(self) -> None:
        """Skip the check, with the provider's own reason, where it cannot work on this machine."""
        if not self.probe.available:
            pytest.skip(f"{self.key} is unavailable here: {self.probe.reason}")

    def open(self, config: Mapping[str, object] | None = None) -> Any:
        """Open it with the settings' configuration, or with ``config``; skips if unavailable."""
        self.require_available()
        return self.registry.open(self.kind, self.name, config)

    @property
    def precision(self) -> Precision:
        """Backends: what models are computed in: the settings' choice, else fp32, else the first.

        :raises ConfigError: the settings name one that the backend does not declare.
        """
        declared: tuple[Precision, ...] = self.info.precisions
        wanted = self.settings.precision
        if wanted and wanted not in declared:
            raise ConfigError(
                f"{self.key} does not declare precision {wanted!r}",
                remedy=f"choose one of {', '.join(declared)} in conformance.toml",
            )
        usual: Precision = "fp32" if "fp32" in declared else declared[0]
        return next((each for each in declared if each == wanted), usual)
