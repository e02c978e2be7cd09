"""``hardpoint weights slice``: some tensors of a file, or a part of each."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import json_option
from hardpoint.cli.weights.options import checksum_option, tell, writing_options
from hardpoint.registry.registry import default_registry


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
@click.option("--of", type=int, default=1, help="Among how many ranks.")
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
    of: int,
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
    from hardpoint.weights.parts import Choice, parse_index
    from hardpoint.weights.progress import bar

    choice = Choice(
        tensors=tensors or ("*",),
        exclude=exclude,
        index={glob: parse_index(text) for glob, text in map(_index, indices)},
        rank=rank,
        of=of,
        dims=dict(map(_dim, dims)),
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


def _index(text: str) -> tuple[str, str]:
    glob, equals, index = text.rpartition("=")
    if not equals or not glob:
        raise click.BadParameter(
            f"{text!r} has no name; write e.g. 'wte.weight=[0:10, :]'", param_hint="'--index'"
        )
    return glob, index


def _dim(text: str) -> tuple[str, int]:
    glob, _, dim = text.rpartition("=")
    try:
        return glob or "*", int(dim)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no dimension; write e.g. 0, or '*.o_proj.weight=1'",
            param_hint="'--dim'",
        ) from None
