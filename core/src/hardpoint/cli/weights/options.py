"""Options that several of these commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    import rich_click as click
    from click.shell_completion import CompletionItem


def serializer_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of installed serializers that begin so, for tab completion."""
    from click.shell_completion import CompletionItem

    names = default_registry().names("serializer")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
