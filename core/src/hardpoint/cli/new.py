"""``hardpoint new``: start a plugin from a complete one that works."""

from __future__ import annotations

import shlex
from pathlib import Path

import rich_click as click

from hardpoint.cli.output import add_row, console, emit_json, json_option, table
from hardpoint.interfaces.kinds import KINDS
from hardpoint.scaffold.contents import contents
from hardpoint.scaffold.names import Names, parse_kinds
from hardpoint.scaffold.write import write


@click.command("new")
@click.argument("name")
@click.option(
    "--kinds",
    metavar="KIND,...",
    default="backend",
    show_default=True,
    help=f"What it provides: {', '.join(KINDS)}.",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=Path(),
    help="Folder to put it in, as hardpoint-NAME.  [default: here]",
)
@click.option("--author", metavar="'NAME <MAIL>'", default="", help="Who you are.")
@json_option
def command(name: str, kinds: str, output: Path, author: str, as_json: bool) -> None:
    """Start the plugin hardpoint-NAME: a complete distribution that passes the conformance kit.

    It works on the CPU as it is; its README says what to put in place of what.
    """
    names, provided = Names.parse(name), parse_kinds(kinds)
    files = contents(names, provided, author)
    folder = output / names.dist
    write(files, folder)
    keys = [f"{kind}:{names.provider}" for kind in provided]
    commands = [
        f"cd {shlex.quote(str(folder))}",
        'pip install -e ".[test,lint]"',
        f"hardpoint check {' '.join(keys)}",
    ]
    if as_json:
        emit_json(
            {
                "name": names.provider,
                "distribution": names.dist,
                "package": names.package,
                "folder": folder.absolute(),
                "providers": keys,
                "files": [
                    {"path": file.path, "purpose": file.purpose, "lines": file.text.count("\n")}
                    for file in files
                ],
                "next": commands,
            }
        )
        return
    out = console()
    listing = table("file", "lines", "what it is", title=f"{folder}: {', '.join(keys)}")
    for file in files:
        add_row(listing, file.path, file.text.count("\n"), file.purpose)
    out.print(listing)
    out.print("\nNext:", style="bold")
    for line in commands:
        out.print(f"  {line}", markup=False)
