"""``hardpoint weights merge``: several files made one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import json_option
from hardpoint.cli.weights.options import (
    check_shard_name,
    checksum_option,
    shard_options,
    tell,
    writing_options,
)
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from hardpoint.weights.merge import Keep


def _existing(
    ctx: click.Context, param: click.Parameter, value: tuple[Path, ...]
) -> tuple[Path, ...]:
    for path in value:
        existing_file(ctx, param, path)
    return value


@click.command("merge")
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(path_type=Path), callback=_existing
)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--last-wins", is_flag=True, help="Of a name that several have, take the last.")
@click.option(
    "--metadata",
    type=click.Choice(("agree", "first", "last", "none")),
    default="agree",
    metavar="RULE",
    help="Of a key with several values: first or last keeps that one; none keeps no metadata;"
    " agree is an error.",
)
@writing_options
@shard_options
@checksum_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    sources: tuple[Path, ...],
    destination: Path,
    last_wins: bool,
    metadata: Keep,
    to: str | None,
    force: bool,
    provenance: bool,
    shard_size: int | None,
    shard_name: str,
    checksum: bool,
    as_json: bool,
) -> None:
    """Write the weights of all SOURCES to DESTINATION, atomically."""
    from hardpoint.weights import merge_weights
    from hardpoint.weights.progress import bar

    check_shard_name(ctx)
    with bar("merging") as show:
        report = merge_weights(
            sources,
            destination,
            registry=default_registry(),
            to=to,
            force=force,
            last_wins=last_wins,
            metadata=metadata,
            shard_size=shard_size,
            shard_name=shard_name,
            checksum=checksum,
            provenance=provenance,
            progress=show,
        )
    read = ", ".join(dict.fromkeys(report.source_formats))
    tell(report, f"{len(sources)} files, {read}", as_json=as_json)
