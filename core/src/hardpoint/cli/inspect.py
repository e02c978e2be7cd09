"""``hardpoint inspect``: what a package holds, told without torch and without running anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.package.archive import Archive
from hardpoint.package.summary import describe, plain
from hardpoint.units import size


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path), callback=existing_file)
@click.option("--entries", is_flag=True, help="List every entry of the archive too.")
@json_option
@click.pass_context
def command(ctx: click.Context, file: Path, entries: bool, as_json: bool) -> None:
    """Show what a package (or any PT2 archive) holds.

    The manifest is checked against its hash; the rest of the content is not: see verify-package.
    """
    with Archive.open(file) as archive:
        facts = describe(archive, entries=entries)
    if as_json:
        emit_json(facts)
        ctx.exit(OK)
    _overview(facts)
    _segments(facts)
    _tensors(facts)
    _verification(facts)
    _entries(facts)


def _overview(facts: Mapping[str, Any]) -> None:
    listing = table("", "")
    listing.show_header = False
    add_row(listing, "file", facts["file"])
    form = facts.get("format")
    add_row(listing, "kind", f"{facts['kind']} ({form})" if form else facts["kind"])
    if facts.get("name"):
        add_row(listing, "name", facts["name"])
    if facts.get("created"):
        made = ", ".join(f"{key} {value}" for key, value in facts["created"].items())
        add_row(listing, "created with", made)
    tensors = facts["tensors"]
    add_row(listing, "size", f"{size(facts['bytes'])} in {facts['entries']} entries")
    add_row(listing, "weights", f"{size(tensors['bytes'])} in {tensors['entries']} entries")
    for program in facts["programs"]:
        said = (
            f"{program['name']}: {program['operations']} operations, {program['weights']} weights, "
            f"torch {program['torch'] or 'unknown'}, schema {program['schema']}"
        )
        add_row(listing, "program", said)
    for name in facts["pickles"]:
        add_row(listing, "pickle", f"{name}: hardpoint refuses to load this file", style="red")
    for name in facts["pickled_examples"]:
        add_row(listing, "pickle", f"{name}: example inputs, never read", style="yellow")
    console().print(listing)


def _segments(facts: Mapping[str, Any]) -> None:
    if not facts.get("segments"):
        return
    listing = table("segment", "target", "operations", "artifact", "provider", "files", "weights")
    for row in facts["segments"]:
        origin = f" ({row['origin']})" if row["origin"] else ""
        add_row(
            listing,
            row["segment"],
            row["target"],
            row["operations"],
            row["format"],
            f"{row['provider']}{origin}",
            size(row["file_bytes"]),
            size(row["weight_bytes"]),
        )
    out = console()
    out.print()
    out.print(listing)


def _tensors(facts: Mapping[str, Any]) -> None:
    rows = [(kind, item) for kind in ("input", "output") for item in facts.get(f"{kind}s", ())]
    if not rows:
        return
    listing = table("", "name", "dtype", "shape")
    for kind, item in rows:
        shape = ", ".join(map(str, item["shape"]))
        add_row(listing, kind, item["name"], item["dtype"], f"[{shape}]")
    out = console()
    out.print()
    out.print(listing)


def _verification(facts: Mapping[str, Any]) -> None:
    if not facts.get("verification"):
        return
    listing = table("verification", "")
    for key, value in facts["verification"].items():
        text = value if isinstance(value, str) else json.dumps(value)
        add_row(listing, plain(key), plain(text))
    out = console()
    out.print()
    out.print(listing)


def _entries(facts: Mapping[str, Any]) -> None:
    if "entry_list" not in facts:
        return
    listing = table("entry", "offset", "bytes")
    for entry in facts["entry_list"]:
        add_row(listing, entry["name"], entry["offset"], entry["bytes"])
    out = console()
    out.print()
    out.print(listing)
