"""The backend's options, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from hardpoint import ConfigError, did_you_mean
from hardpoint_cpu.origin import ORIGIN, PROVIDER

Mode = Literal["eager", "inductor", "aot"]
MODES: tuple[Mode, ...] = get_args(Mode)
_KNOWN = ("mode", "freezing")


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say.

    :param mode: how a segment is run.
    :param freezing: fold and repack weights into the compiled code.
    """

    mode: Mode = "eager"
    freezing: bool = False

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Options:
        """Read the caller's mapping.

        :raises ConfigError: an unknown option, or a value that it cannot have.
        """
        for name in given:
            if name not in _KNOWN:
                raise _wrong(f"the cpu backend has no option {name!r}", did_you_mean(name, _KNOWN))
        mode = given.get("mode", "eager")
        if mode not in MODES:
            raise _wrong(f"mode {mode!r} does not exist", did_you_mean(str(mode), MODES))
        freezing = given.get("freezing", False)
        if not isinstance(freezing, bool):
            raise _wrong(f"option freezing is {freezing!r}", "give true or false")
        if freezing and mode == "eager":
            raise _wrong(
                "option freezing has no meaning in mode 'eager'",
                "ask for mode 'inductor' or 'aot', or leave freezing out",
            )
        return cls(mode, freezing)


def _wrong(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, provider=PROVIDER, origin=ORIGIN, remedy=remedy)
