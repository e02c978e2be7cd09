"""The backend's options, typed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from hardpoint import ConfigError, did_you_mean

PROVIDER = "backend:metal"
ORIGIN = f"hardpoint-metal {version('hardpoint-metal')}"
MODES = ("eager", "inductor", "aot")
HELP = {
    "mode": "eager (default), inductor (compiled where it is loaded) or aot (compiled once)",
}
UNVERIFIED = (
    "written against PyTorch 2.13's API and exercised without a device only: no result of it has "
    "been seen on real hardware"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What ``CompileOptions.backend`` may say."""

    mode: str = "eager"

    @classmethod
    def parse(cls, given: Mapping[str, object]) -> Options:
        """Read the caller's mapping.

        :raises ConfigError: an unknown option, or a value that it cannot have.
        """
        for name in given:
            if name not in HELP:
                what = f"the metal backend has no option {name!r}"
                raise wrong(what, did_you_mean(name, HELP))
        mode = given.get("mode", "eager")
        if mode not in MODES:
            raise wrong(f"mode {mode!r} does not exist", did_you_mean(str(mode), MODES))
        return cls(str(mode))


def format_of(mode: str) -> str:
    """The name of the format of artifacts of ``mode``."""
    return f"hardpoint-metal/{mode}/1"


def wrong(what: str, remedy: str) -> ConfigError:
    """A :class:`ConfigError` of this provider."""
    return ConfigError(what, provider=PROVIDER, origin=ORIGIN, remedy=remedy)
