"""``hardpoint weights verify``: whether weights are as they were saved."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import OK, console, emit_json, json_option
from hardpoint.registry.registry import default_registry
from hardpoint.units import size


@click.command("verify")
@click.argument("path", type=click.Path(path_type=Path), callback=existing_file)
@json_option
@click.pass_context
def command(ctx: click.Context, path: Path, as_json: bool) -> None:
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
