"""``hardpoint weights scan``: what a file of weights would have its readers run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import FAILED, OK, add_row, console, emit_json, json_option, table
from hardpoint.registry.registry import default_registry


@click.command("scan")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@click.option("--format", "form", help="The serializer that looks at it.")
@json_option
@click.pass_context
def command(ctx: click.Context, path: Path, form: str | None, as_json: bool) -> None:
    """Show what code a file of weights asks for, running none of it.

    Ends with status 1 where the file is refused.
    """
    from hardpoint.weights.choose import serializer_for

    name, serializer = serializer_for(path, registry=default_registry(), format=form)
    report = serializer.scan(path)
    if as_json:
        facts = {"file": path, "refused": False, "reason": None} if report is None else report
        emit_json({**facts, "format": name})
    else:
        _print(path, name, report)
    ctx.exit(FAILED if report is not None and report["refused"] else OK)


def _print(path: Path, name: str, report: Mapping[str, Any] | None) -> None:
    out = console()
    if report is None:
        out.print(f"{path}: {name} files hold no code", markup=False)
        return
    if report.get("globals"):
        listing = table("asks for", "allowed", "in", "at byte")
        for each in report["globals"]:
            asked = f"{each['module']}.{each['name']}"
            allowed = "yes" if each["allowed"] else "NO"
            add_row(listing, asked, allowed, each["pickle"], each["position"])
        out.print(listing)
        out.print()
    for tool, verdicts in report.get("tools", {}).items():
        for verdict in verdicts:
            out.print(f"{tool} says, {verdict}", markup=False)
    verdict = f"refused: {report['reason']}" if report["refused"] else "nothing is refused"
    out.print(verdict if report["refused"] else f"{path}: {verdict}", markup=False)
