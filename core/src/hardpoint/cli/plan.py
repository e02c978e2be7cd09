"""``hardpoint plan``: which part of a model runs where, and why."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from hardpoint.cli.destinations import (
    check_not_the_model,
    check_replaceable,
    force_option,
    is_page,
    writable_file,
)
from hardpoint.cli.model_args import ModelArgs, model_args
from hardpoint.cli.output import OK, emit_json, json_option
from hardpoint.cli.work import working


@click.command("plan")
@model_args
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    callback=writable_file,
    help="Write a page that draws the plan.",
)
@click.option("--explain", is_flag=True, help="Say for each segment why it runs where it does.")
@force_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    wanted: ModelArgs,
    html: Path | None,
    explain: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Show which part of a model runs where, and why; compile nothing.

    MODEL is a Hugging Face directory, a .pt2 file, or module:function or file.py:function that
    returns (model, example_inputs).
    """
    if html is not None:
        check_not_the_model(html, wanted.model, "--html")
        check_replaceable(html, "an .html page", is_page, force=force, option="--html")
    plan = wanted.plan()
    if html is not None:
        with working("drawing"):
            plan.save_html(html)
    if as_json:
        emit_json({**plan.to_json(), "html": None if html is None else str(html)})
        ctx.exit(OK)
    click.echo(str(plan))
    if explain:
        click.echo(f"\n{plan.explain()}")
    if html is not None:
        click.echo(f"\nthe page is in {html}")
