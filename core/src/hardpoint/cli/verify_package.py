"""``hardpoint verify-package``: check every hash and rule of a package."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, VERIFICATION, add_row, console, emit_json, json_option, table
from hardpoint.package.verification import verify_package

_STYLES = {"ok": None, "failed": "red", "not checked": "yellow"}


@click.command("verify-package")
@click.argument("file", type=click.Path(path_type=Path), callback=existing_file)
@json_option
@click.pass_context
def command(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Check a package: its structure, its manifest, every hash, and that it needs no pickle.

    Runs nothing of it. Ends with 0 if all is well, with 4 if not.
    """
    checks = verify_package(file)
    error = next((check.error for check in checks if check.error), None)
    if as_json:
        rows = [{"check": c.name, "outcome": c.outcome, "detail": c.detail} for c in checks]
        failure = error.to_json() if error else None
        emit_json({"file": str(file), "ok": error is None, "checks": rows, "error": failure})
    else:
        listing = table("check", "outcome", "detail")
        for check in checks:
            add_row(listing, check.name, check.outcome, check.detail, style=_STYLES[check.outcome])
        console().print(listing)
        if error:
            click.echo(f"\nerror: {error}", err=True)
    ctx.exit(VERIFICATION if error else OK)
