"""Naming a provider on the command line: ``kind:name``, checked and completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rich_click as click
from click.shell_completion import CompletionItem

from hardpoint.interfaces.kinds import KINDS
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from hardpoint.registry.record import Record


class ProviderType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``kind:name`` of an installed provider, as its record. Imports no plugin.

    Raises ``ProviderNotFound`` (not a usage error) where there is none, so that the message says
    what to install.
    """

    name = "kind:name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The record of the provider that ``value`` names."""
        if not isinstance(value, str):
            return value
        kind, colon, name = value.partition(":")
        if not colon or kind not in KINDS:
            meant = [r.key for r in default_registry().records() if r.name == value]
            hint = (
                f"did you mean {' or '.join(meant)}?" if meant else f"kinds are {', '.join(KINDS)}"
            )
            self.fail(f"{value!r} is not KIND:NAME; {hint}", param, ctx)
        return default_registry().record(kind, name)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Installed providers, with their distributions as help."""
        records = default_registry().records()
        return [
            CompletionItem(record.key, help=record.origin)
            for record in records
            if record.key.startswith(incomplete)
        ]


def status_of(record: Record) -> str:
    """The state as people read it: two claims to one name are a ``duplicate``."""
    return "duplicate" if record.rivals else record.state
