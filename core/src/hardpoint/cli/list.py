"""``hardpoint list``: what is installed, told from metadata alone."""

from __future__ import annotations

import rich_click as click

from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.cli.providers import status_of
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.registry.record import Record
from hardpoint.registry.registry import default_registry

_STYLES = {"denied": "yellow", "incompatible": "red", "duplicate": "red", "failed": "red"}


@click.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="List this kind only.")
@json_option
@click.pass_context
def command(ctx: click.Context, kind: Kind | None, as_json: bool) -> None:
    """List the installed providers and what policy says of each, importing none of them."""
    registry = default_registry()
    records = registry.records(kind)
    if as_json:
        emit_json({"providers": [_facts(r) for r in records], "problems": registry.problems})
        ctx.exit(OK)
    out = console()
    if records:
        listing = table("kind", "name", "distribution", "version", "state", "policy")
        for record in records:
            add_row(listing, *_facts(record).values(), style=_STYLES.get(status_of(record)))
        out.print(listing)
    else:
        which = f"{kind} provider" if kind else "provider"
        out.print(
            f'no {which} is installed; pip install "hardpoint[standard]" is a start', markup=False
        )
    errors = console(stderr=True)
    for record in records:
        if record.error:
            errors.print(f"\n{record.error}", markup=False)
    for problem in registry.problems:
        errors.print(f"note: {problem}", markup=False)


def _facts(record: Record) -> dict[str, str]:
    dists = [rival.rpartition(" ") for rival in record.rivals]
    return {
        "kind": record.kind,
        "name": record.name,
        "distribution": ", ".join(dist for dist, _, _ in dists) or record.dist,
        "version": ", ".join(version for _, _, version in dists) or record.version,
        "state": status_of(record),
        "policy": "denied" if record.state == "denied" else "allowed",
    }
