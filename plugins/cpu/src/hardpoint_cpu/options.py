"""The backend's options, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeGuard, TypeVar, get_args

from hardpoint import ConfigError, did_you_mean
from hardpoint_cpu.origin import ORIGIN, PROVIDER

Mode = Literal["eager", "inductor", "aot"]
Scales = Literal["static", "dynamic"]
MODES: tuple[Mode, ...] = get_args(Mode)
SCALES: tuple[Scales, ...] = get_args(Scales)
GROUP_SIZES = (32, 64, 128)
_MOST_THREADS = 4096
_LAST_NODE = 1023
Word = TypeVar("Word", bound=str)


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say.

    :param mode: how a segment is run.
    :param freezing: fold and repack weights when compiling.
    :param max_autotune: let Inductor time several kernels for each product.
    :param threads: that a call computes on; ``None``: as the process says, or one for each
        core of the node where it is loaded (``max_autotune``: where it is compiled).
    :param numa: node of the machine that calls run on; ``None``: where the caller runs.
    :param group_size: columns of an int4 weight that share a scale.
    :param activation_scales: int8: measured on the examples, or anew in each call; ``None``: what
        suits the model.
    """

    mode: Mode = "eager"
    freezing: bool = False
    max_autotune: bool = False
    threads: int | None = None
    group_size: int = 64
    activation_scales: Scales | None = None
    numa: int | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object], precision: str = "fp32") -> Options:
        """Read the caller's mapping.

        :param precision: ``int8`` is compiled and frozen unless said otherwise.
        :raises ConfigError: an unknown option, or a value that it cannot have.
        """
        for name in given:
            if name not in cls.__slots__:
                raise _wrong(
                    f"the cpu backend has no option {name!r}", did_you_mean(name, cls.__slots__)
                )
        compiles = precision == "int8"
        mode = _one_of("mode", given.get("mode", "aot" if compiles else "eager"), MODES)
        freezing = _flag("freezing", given.get("freezing", compiles and mode != "eager"))
        max_autotune = _flag("max_autotune", given.get("max_autotune", False))
        if compiles and not freezing:
            raise _wrong(
                "precision 'int8' needs mode 'inductor' or 'aot', with freezing",
                "leave mode and freezing out: 'aot' with freezing is what int8 takes by itself",
            )
        for name, on in (("freezing", freezing), ("max_autotune", max_autotune)):
            if on and mode == "eager":
                raise _wrong(
                    f"option {name} has no meaning in mode 'eager'",
                    f"ask for mode 'inductor' or 'aot', or leave {name} out",
                )
        if max_autotune and not freezing:
            raise _wrong(
                "option max_autotune needs freezing",
                "add freezing: Inductor has several kernels only for products whose weights are "
                "constants",
            )
        _only_for("group_size", given, "int4w", precision)
        _only_for("activation_scales", given, "int8", precision)
        group_size = given.get("group_size", 64)
        if type(group_size) is not int or group_size not in GROUP_SIZES:
            raise _wrong(f"option group_size is {group_size!r}", "give 32, 64 or 128")
        scales = given.get("activation_scales")
        if scales is not None:
            scales = _one_of("activation_scales", scales, SCALES)
        numa, threads = given.get("numa"), _threads(given.get("threads"))
        if numa is not None and not is_node(numa):
            raise _wrong(f"option numa is {numa!r}", "give the number of a node, 0 or more")
        return cls(mode, freezing, max_autotune, threads, group_size, scales, numa)


def _one_of(name: str, value: object, words: tuple[Word, ...]) -> Word:
    for word in words:
        if value == word:
            return word
    raise _wrong(f"{name} {value!r} does not exist", did_you_mean(str(value), words))


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(f"option {name} is {value!r}", "give true or false")
    return value


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a number of threads."""
    return type(value) is int and 1 <= value <= _MOST_THREADS


def is_node(value: object) -> TypeGuard[int]:
    """Whether it is a number that a NUMA node may have."""
    return type(value) is int and 0 <= value <= _LAST_NODE


def _threads(value: object) -> int | None:
    if value is None:
        return None
    if not is_count(value):
        raise _wrong(f"option threads is {value!r}", "give a number of threads, 1 or more")
    return value


def _only_for(name: str, given: Mapping[str, object], wanted: str, precision: str) -> None:
    if name in given and precision != wanted:
        raise _wrong(
            f"option {name} has no meaning in precision {precision!r}",
            f"ask for precision {wanted!r}, or leave {name} out",
        )


def _wrong(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, provider=PROVIDER, origin=ORIGIN, remedy=remedy)
