"""``hardpoint weights convert``: the same weights in another format."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import json_option
from hardpoint.cli.weights.options import (
    check_shard_name,
    shard_options,
    tell,
    writing_options,
)
from hardpoint.registry.registry import default_registry


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path), callback=existing_file)
@click.argument("destination", type=click.Path(path_type=Path))
@writing_options
@shard_options
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    source: Path,
    destination: Path,
    to: str | None,
    force: bool,
    provenance: bool,
    shard_size: int | None,
    shard_name: str,
    as_json: bool,
) -> None:
    """Write the weights of SOURCE in another format, atomically."""
    from hardpoint.weights import convert_weights
    from hardpoint.weights.progress import bar

    check_shard_name(ctx)
    with bar("converting") as show:
        report = convert_weights(
            source,
            destination,
            registry=default_registry(),
            to=to,
            force=force,
            shard_size=shard_size,
            shard_name=shard_name,
            provenance=provenance,
            progress=show,
        )
    tell(report, report.source_format, as_json=as_json)
