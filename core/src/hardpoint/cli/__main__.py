"""``python -m hardpoint.cli``: the command line without its script."""

from hardpoint.cli import main

main(prog_name="hardpoint")
