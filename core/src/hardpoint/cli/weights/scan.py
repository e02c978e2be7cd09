"""``hardpoint weights scan``: what files of weights would have their readers run, or read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint import __version__
from hardpoint.cli.destinations import (
    check_replaceable,
    existing_file,
    force_option,
    writable_file,
)
from hardpoint.cli.output import FAILED, OK, add_row, console, emit_json, json_option, table
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from hardpoint.weights.scan import Scanned


def _existing(
    ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]
) -> tuple[Path, ...]:
    for path in value:
        existing_file(ctx, param, path)
    return value


@click.command("scan")
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path),
    callback=_existing,
)  # fmt: skip
@click.option("--format", "form", help="The serializer that looks at it.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print SARIF 2.1.0 instead of tables.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), callback=writable_file, metavar="FILE",
    help="Where the SARIF goes instead.",
)  # fmt: skip
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[Path, ...],
    form: str | None,
    as_sarif: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show what files of weights ask for, and which are refused; none of their code is run.

    PATH is a file, or a folder with all below it. Ends with status 1 where a file is refused, where
    nobody knows a file that was named, and where there was nothing to look at.
    """
    from hardpoint.weights.progress import bar
    from hardpoint.weights.sarif import sarif
    from hardpoint.weights.scan import REFUSED, UNKNOWN, scan_paths

    if as_sarif and as_json:
        raise click.UsageError("Take --json or --sarif.")
    if output is not None:
        if not as_sarif:
            raise click.UsageError("--output goes with --sarif.")
        check_replaceable(output, "a SARIF report", _is_report, force=force, option="--output")
    with bar("scanning") as show:
        results = scan_paths(paths, registry=default_registry(), format=form, progress=show)
    failed = any(
        each.status == REFUSED or (each.status == UNKNOWN and each.named) for each in results
    ) or all(each.status == UNKNOWN for each in results)
    if as_json:
        emit_json({"refused": failed, "files": [_facts(each) for each in results]})
    elif as_sarif:
        report = json.dumps(sarif(results, version=__version__, base=Path.cwd()), indent=2)
        if output is None:
            click.echo(report)
        else:
            _write(output, report)
            _print(results)
    else:
        _print(results)
    ctx.exit(FAILED if failed else OK)


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return b"sarif-schema" in file.read(4096)


def _write(path: Path, report: str) -> None:
    from hardpoint.errors import WeightsError
    from hardpoint.storage.atomic import replace

    raw = report.encode()
    try:
        replace(path, len(raw), lambda write: write(memoryview(raw)))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be written",
            cause=error.strerror or str(error),
            remedy="name another file with --output",
        ) from error


def _facts(result: Scanned) -> dict[str, object]:
    from hardpoint.weights.scan import REFUSED

    return {
        "file": result.file,
        "status": result.status,
        "refused": result.status == REFUSED,
        "reason": result.reason,
        "format": result.format,
        "globals": list(result.globals),
        "tools": dict(result.tools),
    }


def _print(results: Sequence[Scanned]) -> None:
    from hardpoint.weights.scan import FINE, REFUSED, UNKNOWN

    for each in results:
        if each.status == REFUSED or len(results) == 1:
            _details(each)
    summary = table("file", "format", "verdict")
    for each in results:
        verdict = {
            FINE: "nothing is refused",
            REFUSED: "REFUSED",
            UNKNOWN: f"nobody reads it: {each.reason}",
        }
        add_row(summary, _name(each), each.format or "", _lines(verdict[each.status], each))
    out = console()
    if results:
        out.print(summary)
        out.print()
    counts = {status: sum(each.status == status for each in results)
              for status in (REFUSED, FINE, UNKNOWN)}  # fmt: skip
    out.print(
        f"{len(results)} file{'s' * (len(results) != 1)}: {counts[REFUSED]} refused,"
        f" {counts[FINE]} fine, {counts[UNKNOWN]} that nobody reads",
        markup=False,
    )


def _details(result: Scanned) -> None:
    out = console()
    if result.globals:
        listing = table("asks for", "allowed", "in", "at byte")
        for each in result.globals:
            asked = f"{each['module']}.{each['name']}"
            allowed = "yes" if each["allowed"] else "NO"
            add_row(listing, asked, allowed, _lines(each["pickle"], result), each["position"])
        out.print(listing)
        out.print()
    for tool, verdicts in result.tools.items():
        for verdict in verdicts:
            out.print(f"{tool} says, {_lines(verdict, result)}", markup=False)
    if result.reason and result.status == "refused":
        out.print(f"refused: {_lines(result.reason, result)}\n", markup=False)


def _name(result: Scanned) -> str:
    from hardpoint.weights.content import printable

    return printable(str(result.file), 4096)


def _lines(text: str, result: Scanned) -> str:
    """A text of several lines, of which no name in it makes more, and a terminal obeys none."""
    from hardpoint.weights.content import printable

    for name in (str(result.file), result.file.name):
        text = text.replace(name, printable(name, 4096))
    return "\n".join(printable(line, 4096) for line in text.split("\n"))
