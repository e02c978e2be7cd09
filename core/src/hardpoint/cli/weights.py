"""``hardpoint weights``: look into files of weights, and convert them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint.cli import scan
from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import (
    OK,
    SuggestingGroup,
    add_row,
    console,
    emit_json,
    json_option,
    table,
)
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hardpoint.interfaces.serializer import TensorInfo

# A bar that flashes up and is gone tells nobody anything.
_PATIENCE_S = 1.0


def _serializers(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    names = default_registry().names("serializer")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.group("weights", cls=SuggestingGroup)
def command() -> None:
    """Look into files of weights, and convert them."""


command.add_command(scan.command)


@command.command("info")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--format", "form", shell_complete=_serializers, help="The serializer that reads it.")
@json_option
@click.pass_context
def info(ctx: click.Context, path: Path, tensors: bool, form: str | None, as_json: bool) -> None:
    """Show what a file of weights holds, reading none of the weights."""
    from hardpoint.weights.choose import open_named

    opened = open_named(path, registry=default_registry(), format=form)
    with opened.reader as reader:
        infos, metadata = list(reader.values()), dict(reader.metadata)
    totals = {
        "tensors": len(infos),
        "parameters": sum(math.prod(info.shape) for info in infos),
        "bytes": sum(info.nbytes for info in infos),
    }
    dtypes = Counter(info.dtype for info in infos)
    if as_json:
        emit_json(
            {
                "file": path,
                "format": opened.name,
                **totals,
                "dtypes": dict(dtypes.most_common()),
                "metadata": metadata,
                "entries": [_entry(info) for info in infos],
            }
        )
        ctx.exit(OK)
    _overview(
        {
            "file": path,
            "format": opened.name,
            **totals,
            "parameters": f"{totals['parameters']:,}",
            "bytes": size(totals["bytes"]),
        },
        dtypes,
    )
    _pairs("metadata", metadata)
    if tensors:
        _listing(infos)


def _entry(info: TensorInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "bytes": info.nbytes,
        "file": Path(info.file).name,
    }


def _overview(facts: dict[str, object], dtypes: Counter[str]) -> None:
    overview = table("", "")
    overview.show_header = False
    for key, value in facts.items():
        add_row(overview, key, value)
    for dtype, count in dtypes.most_common():
        add_row(overview, dtype, f"{count} tensor{'s' * (count != 1)}")
    console().print(overview)


def _pairs(title: str, pairs: dict[str, str]) -> None:
    from hardpoint.weights.content import printable

    if pairs:
        listing = table(title, "value")
        for key, value in sorted(pairs.items()):
            add_row(listing, printable(key), printable(value))
        console().print()
        console().print(listing)


def _listing(infos: list[TensorInfo]) -> None:
    from hardpoint.weights.content import printable

    listing = table("tensor", "dtype", "shape", "bytes", "file")
    for info in infos:
        shape, file = list(info.shape), Path(info.file).name
        add_row(listing, printable(info.name), info.dtype, shape, size(info.nbytes), file)
    console().print()
    console().print(listing)


@command.command("convert")
@click.argument("source", type=click.Path(path_type=Path), callback=existing_file)
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
    from hardpoint.weights.progress import bar

    with bar("converting") as show:
        report = convert_weights(
            source, destination, registry=default_registry(), to=to, force=force, progress=show
        )
    if as_json:
        facts = asdict(report)
        facts["bytes"] = facts.pop("nbytes")
        emit_json(facts)
        ctx.exit(OK)
    console().print(
        f"{report.tensors} tensors, {size(report.nbytes)}: "
        f"{destination} ({report.source_format} to {report.format})",
        markup=False,
    )


@command.command("verify")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@json_option
@click.pass_context
def verify(ctx: click.Context, path: Path, as_json: bool) -> None:
    """Hold the weights of PATH against the checksum that they were saved with."""
    from hardpoint.weights import load_weights

    found = load_weights(path, registry=default_registry(), verify=True)
    nbytes = sum(tensor.nbytes for tensor in found.values())
    if as_json:
        emit_json({"file": path, "tensors": len(found), "bytes": nbytes, "verified": True})
        ctx.exit(OK)
    console().print(
        f"{path}: {len(found)} tensors, {size(nbytes)}, as they were saved", markup=False
    )
