"""``hardpoint run``: run a package, look at what comes out, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint import api
from hardpoint.cli.destinations import (
    check_not_read,
    check_replaceable,
    existing_file,
    force_option,
    never,
    writable_file,
)
from hardpoint.cli.model_args import TargetType
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.cli.work import working
from hardpoint.errors import CompileError, InputError
from hardpoint.events import Event
from hardpoint.interfaces.kinds import Target
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    import torch

    from hardpoint.cli.tensor_files import Summary
    from hardpoint.runtime.model import CompiledModel


@click.command("run")
@click.argument("package", type=click.Path(path_type=Path), callback=existing_file)
@click.option(
    "--fallback",
    type=TargetType(),
    multiple=True,
    help="Recompile for this target where one of the package's is missing here, runs out of memory "
    "or loses its device; repeat.",
)
@click.option(
    "--inputs",
    type=click.Path(path_type=Path),
    callback=existing_file,
    help="Inputs by name: a file of weights (.safetensors) or an .npz. Default: the package's own "
    "recorded examples, or made-up ones.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    callback=writable_file,
    help="Write the results by name: .safetensors or .npz.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Calls to time, after the first.",
)
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    package: Path,
    fallback: tuple[str, ...],
    inputs: Path | None,
    output: Path | None,
    repeat: int,
    force: bool,
    as_json: bool,
) -> None:
    """Run a package; show its results in figures, its latency, and where it ran."""
    if output is not None:
        check_not_read(output, package, "--output")
        check_not_read(output, inputs, "--output")
        check_replaceable(output, "", never, force=force, option="--output")
    for target in fallback:
        default_registry().record("backend", Target.parse(target).backend)
    events: list[Event] = []
    ctx.call_on_close(default_registry().observe(events.append))
    with working("importing PyTorch"):
        import torch  # noqa: F401 - not a part of the time that loading takes
    started = time.perf_counter()
    with working(f"loading {package}"):
        from hardpoint.cli import tensor_files

        model = api.load(package, fallback=fallback or None)
        ctx.call_on_close(model.close)
        load_seconds = time.perf_counter() - started
        given, source = _inputs(model, inputs)
    with working("running"):
        results, times = _call(model, given, repeat)
    named = {spec.name: t for spec, t in zip(model.signature.results, results, strict=True)}
    if output is not None:
        with working(f"writing {output}"):
            tensor_files.write(output, named)
    rows = {name: tensor_files.summarize(tensor) for name, tensor in named.items()}
    timing = _timing(load_seconds, times)
    if as_json:
        emit_json({
            "program": model.facts.name,
            "targets": list(dict.fromkeys(str(s.target) for s in model.segments)),
            "segments": [{"id": s.id, "target": str(s.target)} for s in model.segments],
            "fell_back": next((dict(e.data) for e in events if e.kind == "fell back"), None),
            "inputs": {"from": source, "tensors": [str(spec) for spec in model.signature.inputs]},
            "results": {name: row.to_json() for name, row in rows.items()},
            "seconds": timing,
            "output": None if output is None else str(output),
        })  # fmt: skip
        ctx.exit(OK)
    _report(model, source, rows, timing, len(times) - 1)
    if output is not None:
        click.echo(f"wrote {output}")


def _inputs(model: CompiledModel, file: Path | None) -> tuple[Sequence[torch.Tensor], str]:
    """Flat inputs, and where they come from, in words."""
    from hardpoint.cli import tensor_files

    if file is not None:
        tensors = tensor_files.read(file)
        return tensor_files.in_order(tensors, model.signature, file), str(file)
    # A program without tensor inputs has no examples, and needs none.
    if model.facts.examples or not model.signature.inputs:
        return model.facts.examples, "recorded examples"
    from hardpoint.compiler.examples import make_examples

    try:
        return make_examples(model.signature), "made up"
    except CompileError as error:
        raise InputError(
            "the package carries no example inputs, and none can be made up",
            cause=error.what,
            remedy="give them with --inputs",
        ) from error


def _call(
    model: CompiledModel, inputs: Sequence[torch.Tensor], repeat: int
) -> tuple[list[torch.Tensor], list[float]]:
    """The first call's results, and seconds of the first and of ``repeat`` further calls."""
    results: list[torch.Tensor] = []
    times = []
    for i in range(1 + repeat):
        fresh = [tensor.clone() for tensor in inputs]  # a program may write to its inputs
        start = time.perf_counter()
        got = model.run(fresh)
        times.append(time.perf_counter() - start)
        if i == 0:
            # A result may be the program's own state, which the next call changes.
            results = [tensor.detach().clone() for tensor in got]
    return results, times


def _timing(load_seconds: float, times: Sequence[float]) -> dict[str, float]:
    later = sorted(times[1:])
    return {
        "load": load_seconds,
        "first": times[0],
        "p50": _quantile(later, 0.50),
        "p95": _quantile(later, 0.95),
    }


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile: a value that was really measured."""
    return ordered[math.ceil(share * len(ordered)) - 1]


def _report(
    model: CompiledModel,
    source: str,
    rows: dict[str, Summary],
    timing: dict[str, float],
    calls: int,
) -> None:
    out = console()
    listing = table("result", "type", "min", "mean", "max", "NaN")
    for name, row in rows.items():
        figures = [_figure(v) for v in (row.least, row.mean, row.greatest)]
        add_row(listing, name, f"{row.dtype}{list(row.shape)}", *figures, row.nan)
    out.print(listing)
    targets = ", ".join(dict.fromkeys(str(s.target) for s in model.segments)) or "nothing to run"
    out.print(f"\n{model.facts.name} ran on {targets}; inputs: {source}", markup=False)
    out.print(
        f"load {_time(timing['load'])}, first call {_time(timing['first'])}, "
        f"then p50 {_time(timing['p50'])}, p95 {_time(timing['p95'])} of {calls} calls",
        markup=False,
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"
