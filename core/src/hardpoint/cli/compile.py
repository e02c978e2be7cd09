"""``hardpoint compile``: from a model to a package."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from hardpoint import api
from hardpoint.choosing.budget import Budget
from hardpoint.cli.backends import check_backends
from hardpoint.cli.destinations import (
    check_not_read,
    check_not_the_model,
    check_replaceable,
    force_option,
    is_package,
    writable_file,
)
from hardpoint.cli.model_args import ModelArgs, check_inputs_option, model_args
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.cli.precision_arg import PrecisionType
from hardpoint.cli.work import Steps, stdout_kept, working
from hardpoint.interfaces.backend import PRECISIONS
from hardpoint.measuring.results import CALIBRATED, SAME_DATA
from hardpoint.units import size

if TYPE_CHECKING:
    from hardpoint.compiler.precision import PrecisionAsked
    from hardpoint.runtime.model import CompiledModel

# As many segments have a line of their own under the verification; the results always have one.
_SEGMENTS = 12


@click.command("compile")
@model_args
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    callback=writable_file,
    help="The package to write.",
)
@click.option(
    "--precision",
    type=PrecisionType(),
    metavar="PRECISION",
    help=f"Arithmetic to compute in: {', '.join(PRECISIONS)}; auto: the best within --max-error; "
    "or one a backend: npu=fp16,cpu=bf16. Default: fp32; auto, where no target is named and "
    "--max-error is given.",
)
@click.option(
    "--max-error",
    type=click.FloatRange(min=0),
    help="Greatest accepted difference from eager PyTorch (default: by precision).",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="BACKEND.NAME=VALUE",
    help="An option of a backend, e.g. cpu.mode=aot; the value is JSON, or else a string. Repeat.",
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that measuring may take, where no target is named (default: 600).",
)
@check_inputs_option
@click.option("--isolate", is_flag=True, help="Compile in child processes, safe from crashes.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds that a child may take for one segment; needs --isolate.",
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    wanted: ModelArgs,
    output: Path,
    precision: PrecisionAsked | None,
    max_error: float | None,
    options: tuple[str, ...],
    budget: float | None,
    isolate: bool,
    timeout: float | None,
    force: bool,
    as_json: bool,
) -> None:
    """Compile a model into a package, verified against eager PyTorch.

    MODEL is a Hugging Face directory, a .pt2 file, or module:function or file.py:function that
    returns (model, example_inputs).

    Where neither targets nor a partitioner are named, every way that the backends here have to run
    the model is measured, and the best for --objective taken; the second time it is known.
    """
    if timeout is not None and not isolate:
        raise click.UsageError("--timeout needs --isolate: only a child process can be stopped")
    if budget is not None and wanted.decided:
        raise click.UsageError("--budget is for measuring; leave it out, or --target and the like")
    if precision is None:
        precision = "fp32" if wanted.decided or max_error is None else "auto"
    chosen = parse_options(options)
    check_not_the_model(output, wanted.model, "--output")
    check_not_read(output, wanted.check_inputs, "--output")
    check_replaceable(output, "a package", is_package, force=force, option="--output")
    check_backends(wanted.targets, chosen, precision)
    plan = wanted.plan() if wanted.decided else None
    if plan is not None and not as_json:
        click.echo(str(plan))
    program = wanted.program() if plan is None else plan.program
    started = time.perf_counter()
    with Steps() as steps, stdout_kept():
        if plan is None:
            model = api.compile(
                program,
                targets="auto",
                objective=wanted.objective,
                precision=precision,
                max_error=max_error,
                budget=_budget(budget, timeout),
                options=chosen,
                progress=steps,
            )
        else:
            model = api.compile(
                plan,
                precision=precision,
                max_error=max_error,
                options=chosen,
                isolate=isolate,
                timeout=timeout,
                progress=steps,
            )
    ctx.call_on_close(model.close)
    seconds = time.perf_counter() - started
    with working(f"writing {output}"):
        model.save(output)
    written = output.stat().st_size
    if as_json:
        emit_json(_facts(model, output, written, seconds))
        ctx.exit(OK)
    if model.choice is not None:
        click.echo(str(model.choice))
    _report(model)
    click.echo(f"\ncompiled in {seconds:.1f} s; wrote {output}, {size(written)}")


def _budget(seconds: float | None, timeout: float | None) -> Budget:
    """What measuring may cost."""
    usual = Budget()
    return Budget(
        seconds=usual.seconds if seconds is None else seconds,
        candidate_seconds=usual.candidate_seconds if timeout is None else timeout,
    )


def parse_options(words: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """``cpu.mode=aot`` as ``{"cpu": {"mode": "aot"}}``; values are JSON where they can be read so.

    :raises click.BadParameter: not of that form, or one option twice.
    """
    chosen: dict[str, dict[str, object]] = {}
    for word in words:
        place, equals, value = word.partition("=")
        backend, _, name = place.rpartition(".")
        if not (equals and backend and name):
            raise _bad_option(f"{word!r} is not BACKEND.NAME=VALUE, e.g. cpu.mode=aot")
        if name in chosen.setdefault(backend, {}):
            raise _bad_option(f"{place} is given twice")
        try:
            chosen[backend][name] = json.loads(value)
        except ValueError:
            chosen[backend][name] = value
    return chosen


def _bad_option(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="'--option'")


def _facts(model: CompiledModel, output: Path, written: int, seconds: float) -> dict[str, object]:
    choice = model.choice
    return {
        "plan": dict(model.facts.plan),
        **({} if choice is None else {"choice": choice.to_json()}),
        "verification": dict(model.verification),
        "package": {"path": str(output), "bytes": written},
        "compile_seconds": seconds,
    }


def _report(model: CompiledModel) -> None:
    """The figures of the comparison with eager PyTorch."""
    figures: Mapping[str, Any] = model.verification
    listing = table("verified", "error", "mean error", "cosine")
    for name, row in figures["results"].items():
        add_row(listing, name, *_errors(row))
    segments = list(figures["segments"].items())
    if len(segments) > 1:
        segments.sort(key=lambda item: -float(item[1]["error"]))
        for name, row in segments[:_SEGMENTS]:
            add_row(listing, name, *_errors(row), style="dim")
    out = console()
    out.print()
    if listing.row_count:
        out.print(listing)
    if len(segments) > _SEGMENTS:
        out.print(f"{len(segments) - _SEGMENTS} more segments have no greater error", markup=False)
    if "not_compared" in figures:
        out.print(f"not compared: {figures['not_compared']}", markup=False)
    out.print(
        f"{figures['precision']}: error {_figure(figures['max_error'])}, at most "
        f"{_figure(figures['allowed'])} is allowed; against {figures['reference']}"
        + (", on the examples and on --check-inputs" if figures.get("held_out") else ""),
        markup=False,
    )
    if CALIBRATED in re.findall(r"\w+", str(figures["precision"])) and not figures.get("held_out"):
        out.print(SAME_DATA, markup=False)


def _errors(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return _figure(row["error"]), _figure(row["mean"]), f"{float(row['cosine']):.6f}"


def _figure(stored: float | str) -> str:
    """A figure of a verification, which is a string where it is not finite."""
    value = float(stored)
    return "infinite" if math.isinf(value) else f"{value:.3g}"
