"""``hardpoint check``: run the conformance kit on providers, and say what level each reaches."""

from __future__ import annotations

import importlib.util
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from hardpoint.cli.check_output import Watching, show_report
from hardpoint.cli.output import (
    OK,
    VERIFICATION,
    add_row,
    console,
    emit_json,
    json_option,
    table,
)
from hardpoint.cli.providers import ProviderType
from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.registry.record import Record

if TYPE_CHECKING:
    from hardpoint.testing.report.build import Report
    from hardpoint.testing.subject import Subject

_SETTINGS = Path("conformance.toml")


@click.command("check")
@click.argument("providers", nargs=-1, required=True, type=ProviderType(), metavar="KIND:NAME...")
@click.option(
    "--full", is_flag=True, help="Backends: all of PyTorch's operator database, not a minute of it."
)
@click.option("--checks", metavar="NAME,...", default="", help="Run only these checks.")
@click.option("--list", "only_list", is_flag=True, help="List the checks and run none.")
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write KIND-NAME.json and KIND-NAME.html here.",
)
@click.option(
    "--settings",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Settings and known failures.  [default: conformance.toml, if it is here]",
)
@click.option("--require", metavar="LEVEL", default="", help="Fail below this level.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Backends: processes that run operators.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False),
    metavar="DIR",
    help="Backends: remember operator results here.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=0, min_open=True),
    default=700.0,
    show_default=True,
    help="Seconds that a check may go without a sign of life.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    providers: tuple[Record, ...],
    full: bool,
    checks: str,
    only_list: bool,
    report: Path | None,
    settings: Path | None,
    require: str,
    workers: int,
    cache: str | None,
    patience: float,
    as_json: bool,
) -> None:
    """Prove providers conformant: light to load, right in every operator they claim, robust.

    Each check runs in a child process: a crash or a hang costs that check. The exit code is 4 if a
    check fails, or a level is below --require.
    """
    _need_pytest()
    from hardpoint.testing.runner import run_suite
    from hardpoint.testing.settings import Settings
    from hardpoint.testing.subject import Effort, Subject
    from hardpoint.testing.suites import refuse_unknown_failures

    chosen = tuple(name for name in checks.split(",") if name)
    if require and chosen:
        raise click.UsageError("--require needs every check: a level is not shown by some of them")
    for record in providers:
        _check_names(record, chosen, require)
    if only_list:
        _list(providers, as_json)
        return
    if settings is None and _SETTINGS.is_file():
        settings = _SETTINGS
    effort = Effort("full" if full else "quick", workers, cache or "")
    subjects = []
    for record in providers:
        read = Settings.read(settings, record.key)
        refuse_unknown_failures(read, record.kind)
        subjects.append(Subject(record.kind, record.name, read, effort))
    # As Ctrl-C does: the processes that checks have started are ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    reports: list[Report] = []
    for subject in subjects:
        with Watching(quiet=as_json) as watching:
            results = run_suite(subject, checks=chosen, patience=patience, watch=watching)
        made = _report(subject, results, chosen)
        reports.append(made)
        files = () if report is None else _write(made, report)
        if not as_json:
            show_report(console(), made, files)
    if as_json:
        emit_json({"reports": reports})
    bad = [r for r in reports if not r["passed"] or _below(r, require)]
    ctx.exit(VERIFICATION if bad else OK)


def _need_pytest() -> None:
    """:raises ConfigError: the extra is missing."""
    if importlib.util.find_spec("pytest") is None:
        raise ConfigError(
            "the conformance kit needs pytest, which is not installed",
            remedy='pip install "hardpoint[testing]"',
        )


def _check_names(record: Record, checks: tuple[str, ...], require: str) -> None:
    from hardpoint.testing.check import LEVELS
    from hardpoint.testing.suites import checks_of_kind

    known = [check.name for check in checks_of_kind(record.kind)] if checks else []
    for name in checks:
        if name not in known:
            hint = did_you_mean(name, known)
            raise click.BadParameter(
                f"no check {name!r} of a {record.kind}; {hint}", param_hint="'--checks'"
            )
    levels = LEVELS[record.kind]
    if require and require not in levels:
        words = f"a {record.kind} has no level {require!r}; its levels are {', '.join(levels)}"
        raise click.BadParameter(words, param_hint="'--require'")


def _list(providers: tuple[Record, ...], as_json: bool) -> None:
    from hardpoint.testing.suites import checks_of_kind

    kinds = dict.fromkeys(record.kind for record in providers)
    if as_json:
        rows = [
            {"kind": kind, "name": c.name, "level": c.level, "title": c.title}
            for kind in kinds
            for c in checks_of_kind(kind)
        ]
        emit_json({"checks": rows})
        return
    for kind in kinds:
        listing = table("level", "check", "what it asks", title=f"Checks of a {kind}")
        for check in checks_of_kind(kind):
            add_row(listing, check.level, check.name, check.title)
        console().print(listing)


def _report(subject: Subject, results: list[Any], chosen: tuple[str, ...]) -> Report:
    from hardpoint.testing.report.build import build_report
    from hardpoint.testing.report.facts import facts
    from hardpoint.testing.suites import is_complete

    # Where none were chosen all were run, and the suite need not be imported to know them.
    complete = not chosen or is_complete(subject.kind, {result.name for result in results})
    return build_report(facts(subject, isolated=True), subject, results, complete=complete)


def _write(report: Report, folder: Path) -> tuple[Path, ...]:
    from hardpoint.testing.report.files import write_report

    return write_report(report, folder)


def _below(report: Report, level: str) -> bool:
    """Whether the provider does not reach ``level``."""
    return any(row["name"] == level and not row["reached"] for row in report["levels"])
