"""What several of these commands share: options, and how they tell what they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeVar

import rich_click as click
from click.core import ParameterSource

from hardpoint.cli.output import console, emit_json
from hardpoint.errors import WeightsError
from hardpoint.registry.registry import default_registry
from hardpoint.units import size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from hardpoint.weights import ConvertReport, MergeReport

F = TypeVar("F", bound=Callable[..., object])


def serializer_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of installed serializers that begin so, for tab completion."""
    from click.shell_completion import CompletionItem

    names = default_registry().names("serializer")
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def writing_options(command: F) -> F:
    """Add ``--to``, ``--force`` and ``--provenance/--no-provenance``."""
    for option in (
        click.option(
            "--provenance/--no-provenance",
            default=True,
            help="Record in the metadata what was done, to which files. On by default.",
        ),
        click.option("--force", is_flag=True, help="Replace DESTINATION if it exists."),
        click.option("--to", shell_complete=serializer_names, help="The serializer that writes."),
    ):
        command = option(command)
    return command


def checksum_option(command: F) -> F:
    """Add ``--checksum``."""
    return click.option("--checksum", is_flag=True, help="Add a checksum of the new content.")(
        command
    )


def shard_options(command: F) -> F:
    """Add ``--shard-size``, passed to the command in bytes, and ``--shard-name``."""

    def read(_ctx: click.Context, param: click.Parameter, text: str | None) -> int | None:
        from hardpoint.weights.sharding import shard_size

        try:
            return None if text is None else shard_size(text)
        except WeightsError as error:
            raise click.BadParameter(in_a_line(error), param=param) from None

    command = click.option(
        "--shard-name",
        default="model",
        show_default=True,
        help="What their names begin with; diffusers wants diffusion_pytorch_model.",
    )(command)
    return click.option(
        "--shard-size",
        callback=read,
        metavar="SIZE",
        help="Write a directory of files of at most SIZE, e.g. 5GB, with an index.",
    )(command)


def check_shard_name(ctx: click.Context) -> None:
    """Refuse ``--shard-name`` where no shards are written.

    :raises click.BadParameter: there is no ``--shard-size``.
    """
    given = ctx.get_parameter_source("shard_name") is not ParameterSource.DEFAULT
    if given and ctx.params["shard_size"] is None:
        raise click.BadParameter(
            "files are called so only in a set; add --shard-size", param_hint="'--shard-name'"
        )


def in_a_line(error: WeightsError) -> str:
    """What an error says, as a usage error says it."""
    return f"{error.what}: {error.cause}; {error.remedy}"


def tell(report: ConvertReport | MergeReport, sources: str, *, as_json: bool) -> None:
    """Print what was done; what is left out of the result, on stderr."""
    if as_json:
        facts = asdict(report)
        facts["bytes"] = facts.pop("nbytes")
        emit_json(facts)
        return
    many = f", {len(report.files)} files" if len(report.files) > 1 else ""
    console().print(
        f"{report.tensors} tensors, {size(report.nbytes)}: "
        f"{report.destination} ({sources} to {report.format}{many})",
        markup=False,
    )
    for note in report.notes:
        console(stderr=True).print(f"note: {note}", markup=False)
