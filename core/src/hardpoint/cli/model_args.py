"""What ``plan``, ``compile`` and ``bench`` share: naming a model, targets, sizes that change."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from hardpoint import api
from hardpoint.cli.destinations import existing_file
from hardpoint.cli.work import working
from hardpoint.errors import CaptureError, ConfigError
from hardpoint.interfaces.kinds import Kind, Target
from hardpoint.interfaces.partitioner import OBJECTIVES, Objective
from hardpoint.registry.registry import default_registry

if TYPE_CHECKING:
    from hardpoint.planning.plan import Plan
    from hardpoint.program.program import Program

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class ModelArgs:
    """The shared arguments of a command line.

    :param targets: in order of preference; empty for ``auto``.
    :param decided: targets or a partitioner were named: there is nothing to measure.
    :param dynamic: as :func:`hardpoint.capture` takes it, or ``None``: the model's own.
    :param check_inputs: a file of inputs to verify on, which nothing is calibrated with.
    """

    model: str
    targets: tuple[str, ...]
    objective: Objective
    partitioner: str
    dynamic: dict[str, Any] | None
    decided: bool = True
    check_inputs: Path | None = None

    def program(self) -> Program:
        """Capture the model, saying on stderr what is going on."""
        with working("importing PyTorch"):
            import torch  # noqa: F401 - takes seconds, which the next line should not be blamed for
        with working(f"capturing {self.model}"):
            program = self._capture()
        if self.check_inputs is None:
            return program
        with working(f"reading {self.check_inputs}"):
            from hardpoint.cli import tensor_files
            from hardpoint.compiler.held_out import holding_out

            tensors = tensor_files.read(self.check_inputs)
            flat = tensor_files.in_order(tensors, program.signature, self.check_inputs)
            return holding_out(program, flat)

    def plan(self) -> Plan:
        """Capture the model and plan it, saying on stderr what is going on."""
        program = self.program()
        with working("planning"):
            return api.plan(
                program,
                targets=self.targets or "auto",
                objective=self.objective,
                partitioner=self.partitioner,
            )

    def _capture(self) -> Program:
        try:
            return api.capture(self.model, dynamic=self.dynamic)
        except CaptureError as error:
            if "{0: 'batch'}" in error.remedy and error.what.startswith("dynamic"):
                remedy = "write --dynamic NAME.DIM=SIZE, e.g. x.0=batch; dimensions count from 0"
                raise CaptureError(error.what, cause=error.cause, remedy=remedy) from error
            raise


class TargetType(click.ParamType):  # type: ignore[type-arg]  # generic only in newer click
    """``backend[:device]``. Completes installed backends; imports no plugin."""

    name = "target"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The target in its usual spelling."""
        try:
            return str(Target.parse(value))
        except ConfigError as error:
            self.fail(f"{error.what}; {error.remedy}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Installed backends, with their distributions as help."""
        return _installed("backend", incomplete)


class PartitionerType(click.ParamType):  # type: ignore[type-arg]
    """A partitioner's name. Completes installed ones; imports no plugin."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Installed partitioners, with their distributions as help."""
        return _installed("partitioner", incomplete)


def _installed(kind: Kind, incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(record.name, help=record.origin)
        for record in default_registry().records(kind)
        if record.name.startswith(incomplete)
    ]


class _Targets(TargetType):
    """``auto``, or targets separated by commas, as one word."""

    name = "auto|target,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The targets, none for ``auto``."""
        if isinstance(value, tuple):
            return value
        if value == "auto":
            return ()
        parse, parts = super().convert, [part.strip() for part in value.split(",")]
        if "auto" in parts:
            self.fail("auto stands alone: give auto, or the targets by name", param, ctx)
        return tuple(parse(part, param, ctx) for part in parts)


def model_args(command: F) -> F:
    """Add MODEL and the shared options; the command gets them as ``wanted: ModelArgs``."""
    return _with_args(command, _OPTIONS)


def whole_model_args(command: F) -> F:
    """The same for commands that cut no model: without ``--partitioner``."""
    return _with_args(command, [o for o in _OPTIONS if o is not _PARTITIONER])


def check_inputs_option(command: F) -> F:
    """Add ``--check-inputs``, which becomes a part of ``wanted``."""
    option = click.option(
        "--check-inputs",
        type=click.Path(path_type=Path),
        callback=existing_file,
        help="Other inputs by name, to verify on and, where it is measured, to time: .safetensors "
        "or .npz. Nothing is calibrated with them, as int8 is with the model's examples.",
    )
    return option(command)


def _with_args(command: F, options: Sequence[Callable[[Any], Any]]) -> F:
    def with_args(**values: Any) -> object:
        named, listed = values.pop("target"), values.pop("targets")
        if named and listed is not None:
            raise click.UsageError("give --target or --targets, not both")
        ctx = click.get_current_context()
        assert ctx is not None, "a command runs in its context"
        source = ctx.get_parameter_source("partitioner")
        wanted = ModelArgs(
            model=values.pop("model"),
            targets=named or listed or (),
            objective=values.pop("objective"),
            partitioner=values.pop("partitioner", ""),
            dynamic=parse_dynamic(values.pop("dynamic")),
            decided=bool(named or listed) or source is not ParameterSource.DEFAULT,
            check_inputs=values.pop("check_inputs", None),
        )
        return command(wanted=wanted, **values)

    with_args.__doc__ = command.__doc__
    with_args.__name__ = command.__name__
    # An option stands above those that were added before it.
    made: Any = with_args
    for decorate in reversed(options):
        made = decorate(made)
    made.__click_params__ = getattr(command, "__click_params__", []) + made.__click_params__
    return made  # type: ignore[no-any-return]


_PARTITIONER = click.option(
    "--partitioner",
    type=PartitionerType(),
    default="capability",
    show_default=True,
    help="Who decides which operation runs where.",
)
_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("model"),
    click.option(
        "-t",
        "--target",
        type=TargetType(),
        multiple=True,
        help="Where it may run, backend[:device]; repeat in order of preference.",
    ),
    click.option(
        "--targets",
        type=_Targets(),
        help="The same as one word: T,T,... or auto (default): every available backend.",
    ),
    click.option(
        "--objective",
        type=click.Choice(OBJECTIVES),
        default="latency",
        show_default=True,
        help="What to optimise for.",
    ),
    _PARTITIONER,
    click.option(
        "--dynamic",
        multiple=True,
        metavar="NAME.DIM=SIZE",
        help="A size that may change, e.g. input_ids.0=batch; repeat. Without any, the model's own "
        "(batch and sequence of a Hugging Face directory).",
    ),
)


def parse_dynamic(words: tuple[str, ...]) -> dict[str, Any] | None:
    """``x.0=batch`` and ``batch.ids.1=seq`` as :func:`hardpoint.capture` takes them.

    :raises click.BadParameter: not of that form, or one dimension twice.
    """
    dynamic: dict[Any, Any] = {}
    for word in words:
        place, equals, size = word.partition("=")
        *path, dim = place.split(".")
        if not (equals and size and path and all(path) and re.fullmatch(r"-?[0-9]+", dim)):
            raise _bad_dynamic(f"{word!r} is not NAME.DIM=SIZE, e.g. input_ids.0=batch")
        level = dynamic
        for key in [path[0], *(int(p) if p.isdecimal() else p for p in path[1:])]:
            level = level.setdefault(key, {})
            if not isinstance(level, dict):
                raise _bad_dynamic(f"{word!r} goes into a dimension that was named before")
        if int(dim) in level:
            raise _bad_dynamic(f"{place} is named twice")
        level[int(dim)] = size
    return dynamic or None


def _bad_dynamic(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="'--dynamic'")
