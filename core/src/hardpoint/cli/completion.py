"""``hardpoint completion``: print the script that makes a shell complete our commands."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import get_completion_class

from hardpoint.errors import ConfigError

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    E.g. in ~/.bashrc: eval "$(hardpoint completion bash)"
    """
    from hardpoint.cli import main

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"this release of click completes no {shell}")
    click.echo(found(main, {}, "hardpoint", "_HARDPOINT_COMPLETE").source())
