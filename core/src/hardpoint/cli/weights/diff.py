"""``hardpoint weights diff``: what two files of weights do not have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from hardpoint.cli.destinations import existing_file
from hardpoint.cli.output import FAILED, OK, add_row, console, emit_json, json_option, table
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from rich.table import Table

    from hardpoint.weights import TensorDiff, WeightsDiff

# Of each list, so that they leave the command line that asked for them on the screen.
_A_SCREENFUL = 15
_ORDER = ("identical", "equal", "within", "different")


@click.command("diff")
@click.argument("a", type=click.Path(path_type=Path), callback=existing_file)
@click.argument("b", type=click.Path(path_type=Path), callback=existing_file)
@click.option(
    "--tolerance",
    type=float,
    help="Let values alone decide, not dtypes; elements may differ by that much, absolutely or"
    " relatively.",
)
@click.option("--tensors", is_flag=True, help="List every tensor, not only the worst.")
@json_option
@click.pass_context
def command(
    ctx: click.Context, a: Path, b: Path, tolerance: float | None, tensors: bool, as_json: bool
) -> None:
    """Compare the weights of A and B, which may be of two formats.

    Ends with status 0 where both have the same tensors, and with 1 where they differ. Other
    metadata are shown, and do not count: each format has its own.
    """
    from hardpoint.weights import diff_weights
    from hardpoint.weights.progress import bar

    with bar("comparing") as show:
        found = diff_weights(a, b, registry=default_registry(), tolerance=tolerance, progress=show)
    if as_json:
        emit_json({"same": found.same, **asdict(found)})
    else:
        _print(found, None if tensors else _A_SCREENFUL)
    ctx.exit(OK if found.same else FAILED)


def _print(found: WeightsDiff, most: int | None) -> None:
    for file, names in zip(found.files, (found.only_a, found.only_b), strict=True):
        _names(file, names, most)
    shown = [each for each in found.tensors if most is None or each.verdict != "identical"]
    if shown:
        _tensors(shown, most)
    if found.metadata:
        _metadata(found, most)
    counts: Counter[str] = Counter(each.verdict for each in found.tensors)
    parts = [f"{counts[verdict]} {verdict}" for verdict in _ORDER if counts[verdict]]
    if found.tolerance is not None:
        parts = [part.replace("within", f"within {found.tolerance:g}") for part in parts]
    only = len(found.only_a) + len(found.only_b)
    parts += [f"{only} in one file only"] if only else []
    verdict = "the same" if found.same else "not the same"
    console().print(f"{verdict}: {', '.join(parts) or 'no tensors'}", markup=False)


def _names(file: Path, names: Sequence[str], most: int | None) -> None:
    from hardpoint.weights.content import printable

    if names:
        listing = table(f"only in {printable(str(file))}")
        for name in names[:most]:
            add_row(listing, printable(name))
        _show(listing, len(names), most)


def _tensors(found: Sequence[TensorDiff], most: int | None) -> None:
    from hardpoint.weights.content import printable

    listing = table("tensor", "", "dtype", "shape", "differing", "max abs", "max rel", "worst at")
    for each in found[:most]:
        add_row(
            listing,
            printable(each.name),
            each.verdict,
            _pair(*each.dtypes),
            _pair(*(list(shape) for shape in each.shapes)),
            _count(each),
            "" if each.max_abs is None else f"{each.max_abs:.3g}",
            "" if each.max_rel is None else f"{each.max_rel:.3g}",
            "" if each.worst is None else list(each.worst),
        )
    _show(listing, len(found), most)


def _count(each: TensorDiff) -> str:
    if each.differing is None:
        return ""
    if each.opaque:
        return f"{each.differing} bytes"
    odd = f", {each.not_finite} of them not finite" if each.not_finite else ""
    return f"{each.differing}{odd}"


def _pair(one: object, other: object) -> str:
    return str(one) if one == other else f"{one} / {other}"


def _metadata(found: WeightsDiff, most: int | None) -> None:
    from hardpoint.weights.content import printable

    one, other = (printable(file.name) for file in found.files)
    listing = table("metadata", one, other)
    for key, values in list(found.metadata.items())[:most]:
        shown = ("" if value is None else printable(value, 60) for value in values)
        add_row(listing, printable(key), *shown)
    _show(listing, len(found.metadata), most)


def _show(listing: Table, count: int, most: int | None) -> None:
    out = console()
    out.print(listing)
    if most is not None and count > most:
        out.print(f"... and {count - most} more (--tensors lists all)", markup=False)
    out.print()
