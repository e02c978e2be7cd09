"""What the registry knows about one provider."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from hardpoint.interfaces.kinds import Kind

State = Literal["discovered", "denied", "incompatible", "failed", "loaded"]


@dataclass(frozen=True, slots=True)
class Record:
    """One provider, as known now; a later state is another record.

    :param state: how far it came. A name that two distributions provide is ``failed``, with both
        in ``rivals``.
    :param dist: distribution it comes from, or ``""`` where this process added it.
    :param module: the entry point: ``module`` or ``module:attribute``.
    :param file: the imported file, known once loaded.
    :param import_ms: milliseconds that importing its light module took.
    :param error: the whole message of why it is denied, incompatible or failed.
    :param requires_api: (major, minor) of the contract it asks for, known once loaded.
    :param rivals: ``distribution version`` of each provider of this name, where there are several.
    """

    kind: Kind
    name: str
    state: State
    dist: str = ""
    version: str = ""
    module: str = ""
    file: str = ""
    import_ms: float | None = None
    error: str = ""
    requires_api: tuple[int, int] | None = None
    rivals: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """``kind:name``, as policy and messages write it."""
        return f"{self.kind}:{self.name}"

    @property
    def origin(self) -> str:
        """``distribution version``, or ``this process`` for what it added itself."""
        return f"{self.dist} {self.version}" if self.dist else "this process"

    def to_json(self) -> dict[str, object]:
        """The record as JSON-serializable data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
