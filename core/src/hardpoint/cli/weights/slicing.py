"""``hardpoint weights slice``: some tensors of a file, or a part of each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import json_option
from hardpoint.cli.weights.options import checksum_option, in_a_line, tell, writing_options
from hardpoint.errors import WeightsError
from hardpoint.registry.registry import default_registry

T = TypeVar("T")


@click.command("slice")
@click.argument("source", type=click.Path(path_type=Path), callback=existing_file)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--tensor", "tensors", multiple=True, metavar="GLOB", help="Take tensors so called.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="But not those so called.")
@click.option(
    "--index",
    "indices",
    multiple=True,
    metavar="GLOB=INDEX",
    help="The part of each tensor so called, e.g. 'wte.weight=[0:10, :]'.",
)
@click.option("--rank", type=int, help="Whose share to cut, counted from 0.")
@click.option("--of", type=int, help="Among how many ranks.")
@click.option(
    "--dim",
    "dims",
    multiple=True,
    metavar="[GLOB=]DIM",
    help="The dimension to cut tensors so called along; the first GLOB that fits counts.",
)
@click.option("--hash", "hashed", is_flag=True, help="Record SOURCE's SHA-256: reads all of it.")
@writing_options
@checksum_option
@json_option
def command(
    source: Path,
    destination: Path,
    tensors: tuple[str, ...],
    exclude: tuple[str, ...],
    indices: tuple[str, ...],
    rank: int | None,
    of: int | None,
    dims: tuple[str, ...],
    hashed: bool,
    to: str | None,
    force: bool,
    provenance: bool,
    checksum: bool,
    as_json: bool,
) -> None:
    """Write some tensors of SOURCE, or a part of each, to DESTINATION, atomically.

    Only the bytes needed are read. Without --tensor, all tensors are taken.
    """
    from hardpoint.weights import slice_weights
    from hardpoint.weights.parts import Choice
    from hardpoint.weights.progress import bar

    if of is not None and rank is None:
        raise click.BadParameter("nobody's share is cut; add --rank", param_hint="'--of'")
    if hashed and not provenance:
        raise click.BadParameter(
            "with --no-provenance there is nowhere to record it", param_hint="'--hash'"
        )
    choice = Choice(
        tensors=tensors or ("*",),
        exclude=exclude,
        index=_once(map(_index, indices), "--index"),
        rank=rank,
        of=1 if of is None else of,
        dims=_once(map(_dim, dims), "--dim"),
    )
    with bar("slicing") as show:
        report = slice_weights(
            source,
            destination,
            choice,
            registry=default_registry(),
            to=to,
            force=force,
            checksum=checksum,
            provenance=provenance,
            hashed=hashed,
            progress=show,
        )
    tell(report, report.source_format, as_json=as_json)


def _once(pairs: Iterable[tuple[str, T]], option: str) -> dict[str, T]:
    """By glob; of two for the same, one would do nothing."""
    found: dict[str, T] = {}
    for glob, value in pairs:
        if glob in found:
            raise click.BadParameter(f"{glob!r} is given twice", param_hint=f"'{option}'")
        found[glob] = value
    return found


def _index(text: str) -> tuple[str, tuple[int | slice, ...]]:
    from hardpoint.weights.parts import parse_index

    glob, equals, index = text.rpartition("=")
    if not equals or not glob:
        raise click.BadParameter(
            f"{text!r} has no name; write e.g. 'wte.weight=[0:10, :]'", param_hint="'--index'"
        )
    try:
        return glob, parse_index(index)
    except WeightsError as error:
        raise click.BadParameter(in_a_line(error), param_hint="'--index'") from None


def _dim(text: str) -> tuple[str, int]:
    glob, _, dim = text.rpartition("=")
    try:
        return glob or "*", int(dim)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no dimension; write e.g. 0, or '*.o_proj.weight=1'",
            param_hint="'--dim'",
        ) from None
