"""``hardpoint weights convert``: the same weights in another format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, console, emit_json, json_option
from hardpoint.cli.weights.options import serializer_names
from hardpoint.registry.registry import default_registry
from hardpoint.units import size


@click.command("convert")
@click.argument("source", type=click.Path(path_type=Path), callback=existing_file)
@click.argument("destination", type=click.Path(path_type=Path))
@click.option("--to", shell_complete=serializer_names, help="The serializer that writes.")
@click.option("--force", is_flag=True, help="Replace DESTINATION if it exists.")
@json_option
@click.pass_context
def command(
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
