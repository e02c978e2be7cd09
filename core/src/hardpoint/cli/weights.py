"""``hardpoint weights``: look into files of weights, and convert them."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from hardpoint.cli.inspect import size
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hardpoint.interfaces.serializer import Reader


def _serializers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    names = default_registry().names("serializer")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.group("weights")
def command() -> None:
    """Look into files of weights, and convert them."""


@command.command("info")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--format", "form", shell_complete=_serializers, help="The serializer that reads it.")
@json_option
@click.pass_context
def info(ctx: click.Context, path: Path, tensors: bool, form: str | None, as_json: bool) -> None:
    """Show what a file of weights holds, reading none of the weights."""
    from hardpoint.weights import open_weights

    with open_weights(path, registry=default_registry(), format=form) as reader:
        facts = _describe(path, reader)
    if as_json:
        emit_json(facts)
        ctx.exit(OK)
    out = console()
    overview = table("", "")
    overview.show_header = False
    for key in ("file", "tensors", "parameters", "bytes"):
        add_row(overview, key, facts[key] if key != "bytes" else size(int(str(facts[key]))))
    for dtype, count in facts["dtypes"].items():  # type: ignore[attr-defined]
        add_row(overview, dtype, f"{count} tensors")
    for key, value in facts["metadata"].items():  # type: ignore[attr-defined]
        add_row(overview, f"metadata: {key}", value)
    out.print(overview)
    if tensors:
        listing = table("tensor", "dtype", "shape", "bytes", "file")
        for entry in facts["entries"]:  # type: ignore[attr-defined]
            add_row(listing, *entry.values())
        out.print()
        out.print(listing)


def _describe(path: Path, reader: Reader) -> dict[str, object]:
    infos = list(reader.values())
    entries = [
        {"name": i.name, "dtype": i.dtype, "shape": list(i.shape), "bytes": i.nbytes,
         "file": Path(i.file).name}
        for i in infos
    ]  # fmt: skip
    return {
        "file": str(path),
        "tensors": len(infos),
        "parameters": sum(math.prod(i.shape) for i in infos),
        "bytes": sum(i.nbytes for i in infos),
        "dtypes": dict(Counter(i.dtype for i in infos).most_common()),
        "metadata": dict(reader.metadata),
        "entries": entries,
    }


@command.command("convert")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--to", shell_complete=_serializers, help="The serializer that writes.")
@click.option("--force", is_flag=True, help="Replace DESTINATION if it exists.")
@json_option
@click.pass_context
def convert(
    ctx: click.Context, source: Path, destination: Path, to: str | None, force: bool, as_json: bool
) -> None:
    """Write the weights of SOURCE in another format, atomically."""
    from hardpoint.weights import convert_weights

    screen = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(),
               TransferSpeedColumn())  # fmt: skip
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("converting")

        def show(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, description=name)

        report = convert_weights(
            source, destination, registry=default_registry(), to=to, force=force, progress=show
        )
    if as_json:
        emit_json(
            {
                "source": source,
                "destination": destination,
                "format": report.format,
                "tensors": report.tensors,
                "bytes": report.nbytes,
            }
        )
        ctx.exit(OK)
    console().print(
        f"{report.tensors} tensors, {size(report.nbytes)}: {destination} ({report.format})",
        markup=False,
    )
