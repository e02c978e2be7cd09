"""``hardpoint bench``: every way to run a model on this machine, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint import api
from hardpoint.benching.csv_file import is_ours
from hardpoint.cli.backends import check_backends
from hardpoint.cli.bench_screen import BenchScreen, bench_table, left_out
from hardpoint.cli.compile import parse_options
from hardpoint.cli.destinations import (
    check_not_read,
    check_not_the_model,
    check_replaceable,
    force_option,
    is_page,
    writable_file,
)
from hardpoint.cli.listed_args import BatchesType, PrecisionsType, VariantsType
from hardpoint.cli.model_args import ModelArgs, check_inputs_option, whole_model_args
from hardpoint.cli.output import FAILED, OK, console, emit_json, json_option

if TYPE_CHECKING:
    from rich.console import Console

    from hardpoint.benching.benchmark import Benchmark
    from hardpoint.benching.row import BenchRow
    from hardpoint.interfaces.backend import Precision


@click.command("bench")
@whole_model_args
@click.option(
    "--precisions",
    type=PrecisionsType(),
    help="Arithmetic to compute in: P,P,...; default: all that each backend has.",
)
@click.option(
    "--variants",
    type=VariantsType(),
    help="The backends' own ways to try, and default for their defaults: V,V,...; default: all.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="BACKEND.NAME=VALUE",
    help="An option that each candidate of a backend has, e.g. cpu.mode=aot. Repeat.",
)
@click.option(
    "--batch",
    "batches",
    type=BatchesType(),
    default=(),
    help="Samples in a call: N,N,...; default: as the model's examples.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="That each process computes with (default: as many as PyTorch does).",
)
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="Greatest accepted difference from eager PyTorch; what is beyond is a failure. Default: "
    "it is timed, and marked where it is beyond what is usual for its precision.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Rounds of timing, 60 ms for each candidate.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds in all; when they are spent, nothing more is compiled.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    help="Seconds that one candidate may take to compile.",
)
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path),
    callback=writable_file,
    help="Write all figures, a line a row.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    callback=writable_file,
    help="Write a page with the table and plots.",
)
@check_inputs_option
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    wanted: ModelArgs,
    precisions: tuple[Precision, ...] | None,
    variants: tuple[str, ...] | None,
    options: tuple[str, ...],
    batches: tuple[int, ...],
    threads: int | None,
    max_error: float | None,
    rounds: int,
    budget: float | None,
    timeout: float,
    csv_file: Path | None,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Compare all ways to run a model on this machine: speed, start, size, memory, error.

    Each target, precision and variant is compiled and run in processes of its own, compared with
    eager PyTorch, and timed in turn with the others; one that fails is a row with the reason.

    MODEL is a Hugging Face directory, a .pt2 file, or module:function or file.py:function that
    returns (model, example_inputs).
    """
    chosen = parse_options(options)
    for path, option, what, ours in (
        (html, "--html", "an .html page", is_page),
        (csv_file, "--csv", "a table of this command", is_ours),
    ):
        if path is not None:
            check_not_the_model(path, wanted.model, option)
            check_not_read(path, wanted.check_inputs, option)
            check_replaceable(path, what, ours, force=force, option=option)
    check_backends(wanted.targets, chosen, "auto")
    program = wanted.program()
    screen = BenchScreen(shows_table=not as_json)
    with _told_on_interrupt(screen, as_json), screen:
        bench = api.bench(
            program,
            targets=wanted.targets or "auto",
            precisions=precisions,
            variants=variants,
            options=chosen,
            batches=batches,
            threads=threads,
            objective=wanted.objective,
            max_error=max_error,
            rounds=rounds,
            budget=budget,
            timeout=timeout,
            progress=screen.progress,
            watch=screen.watch,
        )
    if csv_file is not None:
        bench.save_csv(csv_file)
    if html is not None:
        bench.save_html(html)
    if as_json:
        emit_json({**bench.to_json(), "csv": _name(csv_file), "html": _name(html)})
    else:
        _report(bench, csv_file, html)
    ran = any(row.timing and not row.eager for row in bench.rows)
    if not ran:
        click.echo("error: no candidate could be timed; the table says why", err=True)
    ctx.exit(OK if ran else FAILED)


@contextmanager
def _told_on_interrupt(screen: BenchScreen, as_json: bool) -> Iterator[None]:
    """On Ctrl-C show what is known by then, which took minutes; then go on ending."""
    try:
        yield
    except KeyboardInterrupt:
        if screen.rows and not as_json:
            _table(screen.rows)
            click.echo("interrupted: figures so far; no file was written", err=True)
        raise


def _report(bench: Benchmark, csv_file: Path | None, html: Path | None) -> None:
    out = _table(bench.rows)
    out.print()
    for note in bench.notes:
        out.print(note, markup=False)
    for path in filter(None, (csv_file, html)):
        out.print(f"wrote {path}", markup=False)


def _table(rows: Sequence[BenchRow]) -> Console:
    out = console()
    width = out.width if out.is_terminal else None
    out.print(bench_table(rows, width))
    missing = left_out(rows, width)
    if missing is not None:
        out.print(missing)
    return out


def _name(path: Path | None) -> str | None:
    return None if path is None else str(path)
