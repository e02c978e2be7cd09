"""``hardpoint completion``: print the script that makes a shell complete our commands."""

from __future__ import annotations

import rich_click as click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
)

from hardpoint.errors import ConfigError

_SHELLS = ("bash", "zsh", "fish")


class ColonBash(BashComplete):
    """Completes ``kind:name`` in bash, which takes the colon for the end of a word.

    Bash hands ``backend:np`` over as three words and replaces the last of them only, so we join
    them to look the completion up, and answer with what follows the colon.
    """

    def get_completion_args(self) -> tuple[list[str], str]:
        """The complete words, and the incomplete one; both joined at colons."""
        words, last = super().get_completion_args()
        joined: list[str] = []
        for word in [*words, last]:
            if joined and (word == ":" or joined[-1].endswith(":")):
                joined[-1] += word
            else:
                joined.append(word)
        return joined[:-1], joined[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Completions of the incomplete word, without what stands before its colon."""
        items = super().get_completions(args, incomplete)
        known = incomplete.rpartition(":")[0]
        for item in items:
            if known and item.value.startswith(f"{known}:"):
                item.value = item.value[len(known) + 1 :]
        return items


def use_our_bash() -> None:
    """Make click complete in bash with :class:`ColonBash`."""
    add_completion_class(ColonBash, "bash")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    E.g. in ~/.bashrc: eval "$(hardpoint completion bash)"
    """
    from hardpoint.cli import COMPLETE_VARIABLE, main

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"this release of click completes no {shell}")
    click.echo(found(main, {}, "hardpoint", COMPLETE_VARIABLE).source())
