"""``hardpoint``: one module per command, imported when that command runs and not before.

The table below is all that ``--help`` reads, so that it imports neither torch nor a command.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import rich_click as click

from hardpoint import __version__
from hardpoint.cli.output import EXIT_CODES, SuggestingGroup, fail, readable_warnings
from hardpoint.errors import HardpointError

COMMANDS = {
    "list": ("hardpoint.cli.list", "List the installed providers, importing none of them."),
    "doctor": ("hardpoint.cli.doctor", "Try each provider in a process of its own."),
    "lock": ("hardpoint.cli.lock", "Pin the installed providers to their exact files."),
    "plan": ("hardpoint.cli.plan", "Show which part of a model runs where, and why."),
    "compile": ("hardpoint.cli.compile", "Compile a model into a package."),
    "bench": ("hardpoint.cli.bench", "Compare all ways to run a model on this machine."),
    "run": ("hardpoint.cli.run", "Run a package and report its latency."),
    "inspect": ("hardpoint.cli.inspect", "Show what a package holds."),
    "weights": ("hardpoint.cli.weights", "Look into and convert files of weights."),
    "verify-package": ("hardpoint.cli.verify_package", "Check every hash and rule of a package."),
    "new": ("hardpoint.cli.new", "Start a plugin: a complete distribution that passes the kit."),
    "check": ("hardpoint.cli.check", "Prove a provider conformant: run the kit on it."),
    "completion": ("hardpoint.cli.completion", "Print the completion script of a shell."),
}

_EPILOG = (
    "Exit codes: "
    + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    + ". HARDPOINT_DEBUG=1 adds tracebacks to errors."
)
COMPLETE_VARIABLE = "_HARDPOINT_COMPLETE"


class LazyCommand(click.RichCommand):
    """A command known by name and help line; the real one is imported when it is invoked."""

    def __init__(self, name: str, module: str, summary: str) -> None:
        super().__init__(name=name, help=summary, short_help=summary)
        self.module = module

    def load(self) -> click.Command:
        """The real command."""
        command: click.Command = importlib.import_module(self.module).command
        return command

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> Any:
        """The real command's context: from here on, click deals with the real command only."""
        return self.load().make_context(info_name, args, parent, **extra)


class LazyGroup(SuggestingGroup):
    """The outermost group: finds commands in :data:`COMMANDS`, prints errors for people."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the commands, in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, still unloaded."""
        known = COMMANDS.get(cmd_name)
        return None if known is None else LazyCommand(cmd_name, *known)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run as a program."""
        if COMPLETE_VARIABLE in os.environ:
            # Only then: click's table of shells is global, and the process may be an embedder's.
            importlib.import_module("hardpoint.cli.completion").use_our_bash()
        return super().main(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a :class:`HardpointError` becomes a message and an exit code."""
        with readable_warnings():
            try:
                return super().invoke(ctx)
            except HardpointError as error:
                ctx.exit(fail(error))


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="hardpoint")
def main() -> None:
    """One neutral mount between PyTorch models and every piece of hardware."""
