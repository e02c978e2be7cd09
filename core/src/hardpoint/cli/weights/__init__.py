"""``hardpoint weights``: look into files of weights, change them, prove them."""

from __future__ import annotations

import rich_click as click

from hardpoint.cli.output import SuggestingGroup
from hardpoint.cli.weights import convert, diff, info, merge, scan, sign, slicing, verify


@click.group("weights", cls=SuggestingGroup)
def command() -> None:
    """Look into files of weights, change them, and prove them."""


for module in (info, convert, slicing, merge, diff, scan, sign, verify):
    command.add_command(module.command)
