"""What every command shares: consoles, tables, ``--json``, and exit codes that mean something."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardpoint.errors import (
    HardpointError,
    HardpointWarning,
    LockMismatch,
    PackageError,
    ProviderError,
    VerificationError,
    WeightsMismatch,
    did_you_mean,
)
from hardpoint.registry.lock import UnusableLockError

OK = 0
FAILED = 1
USAGE = 2
PROVIDER = 3
VERIFICATION = 4

EXIT_CODES: Mapping[int, str] = {
    OK: "done",
    FAILED: "what was asked for failed",
    USAGE: "the command line is wrong",
    PROVIDER: "a provider is missing, denied, incompatible or broken",
    VERIFICATION: (
        "a check failed: wrong numbers, a damaged package, weights or a lock that do not match"
    ),
}

_FAILED_CHECKS = (
    VerificationError,
    PackageError,
    LockMismatch,
    UnusableLockError,
    WeightsMismatch,
)

# A pipe has no width: a table in it is as wide as its content, so that nothing is cut.
_PIPE_WIDTH = 100_000
_JSON = "hardpoint.json"

F = TypeVar("F", bound=Callable[..., object])


class SuggestingGroup(click.RichGroup):
    """A group of commands that answers a misspelt name with the nearest one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            near = did_you_mean(args[0], self.list_commands(ctx))
            ctx.fail(f"No such command {args[0]!r}; {near}")
        return super().resolve_command(ctx, args)


def console(*, stderr: bool = False) -> Console:
    """A console on stdout (or stderr): honours ``NO_COLOR``, never wraps or cuts where piped."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else _PIPE_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=width is not None)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the house style; add rows with :func:`add_row`.

    Titles are plain text as cells are: the name of a file may stand in one.
    """
    shown = None if title is None else escape(title)
    made = Table(title=shown, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        made.add_column(escape(column), overflow="fold")
    return made


def add_row(to: Table, *cells: object, style: str | None = None) -> None:
    """Add a row of plain text: what a cell says is never read as markup."""
    to.add_row(*(escape(str(cell)) for cell in cells), style=style)


def emit_json(value: object) -> None:
    """Print ``value`` as JSON on stdout: the only thing a command prints there under ``--json``."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> object:
    """JSON for the few types that our results hold besides JSON's own."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def json_option(command: F) -> F:
    """Add ``--json``, passed to the command as ``as_json: bool``."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
        # Errors are printed by the outermost group, which does not see this command's arguments.
        ctx.meta[_JSON] = value
        return value

    option = click.option(
        "--json", "as_json", is_flag=True, callback=remember, help="Print JSON instead of tables."
    )
    return option(command)


def exit_code(error: HardpointError) -> int:
    """Which of :data:`EXIT_CODES` an error ends the command with."""
    if isinstance(error, _FAILED_CHECKS):
        return VERIFICATION
    if isinstance(error, ProviderError):
        return PROVIDER
    return FAILED


def fail(error: HardpointError, *, as_json: bool | None = None) -> int:
    """Print ``error`` (stderr, or as JSON on stdout under ``--json``); return the exit code.

    ``HARDPOINT_DEBUG=1`` adds the traceback, on stderr.
    """
    ctx = click.get_current_context(silent=True)
    if as_json is None:
        as_json = bool(ctx is not None and ctx.meta.get(_JSON, False))
    if os.environ.get("HARDPOINT_DEBUG", "") not in ("", "0"):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if as_json:
        emit_json(error.to_json())
    else:
        click.echo(_with_notes(error), err=True)
    return exit_code(error)


def _with_notes(error: HardpointError) -> str:
    notes: Iterable[str] = getattr(error, "__notes__", ())
    return "\n".join([f"error: {error}", *(f"  note: {note}" for note in notes)])


@contextmanager
def readable_warnings() -> Iterator[None]:
    """Print hardpoint's warnings as one line on stderr, without the place in the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", HardpointWarning)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, HardpointWarning):
                click.echo(f"warning: {message}", err=True)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
