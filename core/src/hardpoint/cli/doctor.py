"""``hardpoint doctor``: try each provider where it can do no harm, and say how it is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import cast

import rich_click as click
from rich.progress import Progress, SpinnerColumn, TextColumn

from hardpoint.cli.doctor_worker import state_of
from hardpoint.cli.examination import Finding, examine
from hardpoint.cli.output import (
    OK,
    PROVIDER,
    VERIFICATION,
    add_row,
    console,
    emit_json,
    json_option,
    table,
)
from hardpoint.cli.providers import ProviderType
from hardpoint.errors import HardpointError, LockMismatch
from hardpoint.registry.record import Record
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

# Each may start a driver or import a gigabyte of SDK.
_AT_ONCE = 2
_STYLES = {"ready": "green", "unavailable": "yellow", "denied": "yellow"}


@click.command("doctor")
@click.argument("providers", nargs=-1, type=ProviderType(), metavar="[KIND:NAME]...")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="Seconds that each provider has to answer.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context, providers: tuple[Record, ...], timeout: float, as_json: bool
) -> None:
    """Load and probe each provider (default: all) in a process of its own.

    Ready, unavailable (and what is missing), broken (and why), denied or incompatible. The exit
    code is 3 if one is broken or incompatible, or one that was named is denied; it is 4 if one is
    not what HARDPOINT_LOCK pins.
    """
    default_registry().lock_failures()  # an unusable lock is one error, not one of each provider
    records = providers or default_registry().records()
    findings = _examine_all(records, timeout, quiet=as_json)
    bad = {"broken", "incompatible"} | ({"denied"} if providers else set())
    code = PROVIDER if any(finding.state in bad for finding in findings) else OK
    if any(_unlocked(finding) for finding in findings):
        code = VERIFICATION
    if as_json:
        emit_json({"providers": [finding.to_json() for finding in findings]})
        ctx.exit(code)
    out = console()
    listing = table("provider", "from", "state", "what there is to say")
    for finding in findings:
        words = "\n".join(_words(finding))
        style = _STYLES.get(finding.state, "red")
        add_row(
            listing, finding.record.key, finding.record.origin, finding.state, words, style=style
        )
    out.print(listing)
    counts = Counter(finding.state for finding in findings)
    out.print(", ".join(f"{count} {state}" for state, count in counts.items()) or "no provider")
    ctx.exit(code)


def _examine_all(records: Sequence[Record], timeout: float, *, quiet: bool) -> list[Finding]:
    """Findings in the order of ``records``; those that discovery settled start no process."""
    findings = {r.key: _settled(r) for r in records if r.state not in ("discovered", "loaded")}
    todo = [record for record in records if record.key not in findings]
    screen, stop = console(stderr=True), threading.Event()
    columns = (SpinnerColumn(), TextColumn("examined {task.completed} of {task.total} providers"))
    hidden = quiet or not screen.is_terminal
    with (
        Progress(*columns, console=screen, transient=True, disable=hidden) as progress,
        ThreadPoolExecutor(_AT_ONCE) as pool,
    ):
        task = progress.add_task("", total=len(todo))
        try:
            running = {pool.submit(examine, each, timeout, stop): each.key for each in todo}
            for future in as_completed(running):
                findings[running[future]] = future.result()
                progress.advance(task)
        except BaseException:
            # Ctrl-C: kill what runs, instead of waiting for it.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [findings[record.key] for record in records]


def _settled(record: Record) -> Finding:
    """The finding for a provider that may not, or cannot, be loaded at all: imports nothing."""
    try:
        default_registry().load(record.kind, record.name)
    except HardpointError as error:
        details = {"error": error.to_json()}
        return Finding(record, state_of(error), error.cause, error.remedy, details)
    raise AssertionError(f"{record.key} is {record.state}, and loads")


def _unlocked(finding: Finding) -> bool:
    """Whether the lock in force refused it."""
    error = finding.details.get("error")
    return isinstance(error, dict) and error["error"] == LockMismatch.__name__


def _words(finding: Finding) -> Iterator[str]:
    if finding.reason:
        yield finding.reason
    if finding.remedy:
        yield f"remedy: {finding.remedy}"
    for device in cast("list[dict[str, object]]", finding.details.get("devices", [])):
        memory = device["memory"]
        of = f", {size(memory)}" if isinstance(memory, int) else ""
        yield f"{device['id']}: {device['name']}{of}"
    unverified = finding.details.get("unverified")
    if unverified:
        yield f"unverified: {unverified}"
    for note in cast("list[str]", finding.details.get("notes", [])):
        yield f"note: {note}"
