"""``hardpoint weights info``: what a file of weights holds."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, add_row, console, emit_json, json_option, table
from hardpoint.cli.weights.options import serializer_names
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

if TYPE_CHECKING:
    from hardpoint.interfaces.serializer import TensorInfo


@click.command("info")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--format", "form", shell_complete=serializer_names, help="The serializer that reads it."
)
@json_option
@click.pass_context
def command(ctx: click.Context, path: Path, tensors: bool, form: str | None, as_json: bool) -> None:
    """Show what a file of weights holds, reading none of the weights."""
    from hardpoint.weights.choose import open_named
    from hardpoint.weights.provenance import read_record, told, without_records

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
                "provenance": read_record(metadata),
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
    record = read_record(metadata)
    _pairs("metadata", metadata if record is None else without_records(metadata))
    if record is not None:
        _provenance(told(record))
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


def _provenance(lines: list[str]) -> None:
    out = console()
    out.print()
    out.print("where it came from", style="bold")
    for line in lines:
        out.print(line, markup=False)


def _listing(infos: list[TensorInfo]) -> None:
    from hardpoint.weights.content import printable

    listing = table("tensor", "dtype", "shape", "bytes", "file")
    for info in infos:
        shape, file = list(info.shape), Path(info.file).name
        add_row(listing, printable(info.name), info.dtype, shape, size(info.nbytes), file)
    console().print()
    console().print(listing)
