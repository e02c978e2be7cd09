"""``hardpoint lock``: pin the installed providers."""

from __future__ import annotations

import os
from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import check_replaceable, force_option
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.registry.lock import is_lock
from hardpoint.registry.registry import default_registry


@click.command("lock")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: HARDPOINT_LOCK, else hardpoint.lock here.",
)
@force_option
@json_option
@click.pass_context
def command(ctx: click.Context, output: Path | None, force: bool, as_json: bool) -> None:
    """Pin every usable provider to its distribution, version and RECORD hash.

    With HARDPOINT_LOCK naming the file, anything else is refused before it is imported.
    """
    path = output or Path(os.environ.get("HARDPOINT_LOCK") or "hardpoint.lock")
    check_replaceable(path, "a lock file", is_lock, force=force, option="--output")
    records = default_registry().write_lock(path)
    if as_json:
        emit_json({"lock": path, "providers": [record.to_json() for record in records]})
        ctx.exit(OK)
    listing = table("provider", "distribution", "version")
    for record in records:
        add_row(listing, record.key, record.dist, record.version)
    out = console()
    out.print(listing)
    out.print(f"pinned {len(records)} in {path}; HARDPOINT_LOCK={path} holds to it", markup=False)
