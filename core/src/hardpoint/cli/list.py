"""``hardpoint list``: what is installed, told from metadata alone."""

from __future__ import annotations

from collections.abc import Mapping

import rich_click as click

from hardpoint.cli.output import (
    OK,
    VERIFICATION,
    add_row,
    console,
    emit_json,
    fail,
    json_option,
    table,
)
from hardpoint.cli.providers import status_of
from hardpoint.errors import ConfigError, HardpointError, LockMismatch
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.registry.record import Record
from hardpoint.registry.registry import Registry, default_registry

_STYLES = {"denied": "yellow", "incompatible": "red", "duplicate": "red", "failed": "red"}


@click.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="List this kind only.")
@json_option
@click.pass_context
def command(ctx: click.Context, kind: Kind | None, as_json: bool) -> None:
    """List the installed providers and what policy says of each, importing none of them."""
    registry = default_registry()
    records = registry.records(kind)
    refused, unusable = _lock(registry)
    code = VERIFICATION if unusable or any(r.key in refused for r in records) else OK
    rows = [_facts(r, refused, unusable) for r in records]
    if as_json:
        facts: dict[str, object] = {"providers": rows, "problems": registry.problems}
        if unusable:
            facts["error"] = unusable.to_json()
        emit_json(facts)
        ctx.exit(code)
    out = console()
    if records:
        listing = table("kind", "name", "distribution", "version", "state", "policy")
        for record, row in zip(records, rows, strict=True):
            add_row(listing, *row.values(), style=_STYLES.get(status_of(record)))
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
    if unusable:
        fail(unusable)
    else:
        _say_mismatches([refused[r.key] for r in records if r.key in refused])
    ctx.exit(code)


def _lock(registry: Registry) -> tuple[Mapping[str, LockMismatch], HardpointError | None]:
    """What HARDPOINT_LOCK refuses; and why nothing can be loaded under it, if it is unusable."""
    try:
        return registry.lock_failures(), None
    except ConfigError as error:
        return {}, error


def _say_mismatches(mismatches: list[LockMismatch]) -> None:
    """One message for all, since one cause (an upgrade, an old lock) is behind most of them."""
    if not mismatches:
        return
    first, more = mismatches[0], len(mismatches) - 1
    many = f"; so it is with {more} more" if more else ""
    what = f"{len(mismatches)} of the providers above cannot be loaded: the lock does not match"
    cause = f"{first.what}{f': {first.cause}' if first.cause else ''}{many}"
    fail(LockMismatch(what, cause=cause, remedy=first.remedy))


def _facts(
    record: Record, refused: Mapping[str, LockMismatch], unusable: HardpointError | None
) -> dict[str, str]:
    dists = [rival.rpartition(" ") for rival in record.rivals]
    return {
        "kind": record.kind,
        "name": record.name,
        "distribution": ", ".join(dist for dist, _, _ in dists) or record.dist,
        "version": ", ".join(version for _, _, version in dists) or record.version,
        "state": status_of(record),
        "policy": _policy(record, refused, unusable),
    }


def _policy(
    record: Record, refused: Mapping[str, LockMismatch], unusable: HardpointError | None
) -> str:
    if record.state == "denied":
        return "denied"
    if unusable:
        return "unusable lock"
    return "not as locked" if record.key in refused else "allowed"
