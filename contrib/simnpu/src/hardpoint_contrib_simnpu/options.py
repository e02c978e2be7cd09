"""Configuration, typed and checked. Light: the probe reads it too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hardpoint import Device, did_you_mean
from hardpoint_contrib_simnpu.chip import MIB, device
from hardpoint_contrib_simnpu.origin import config_error

# name -> (environment variable that gives its default, default, least, greatest)
_KNOWN = {
    "devices": ("SIMNPU_DEVICES", 1, 1, 4),
    "dram_mib": ("SIMNPU_DRAM_MIB", 64, 1, 4096),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What is simulated.

    :param devices: how many devices, 1 to 4; their ids are ``"0"`` and up.
    :param dram_mib: memory of each, in MiB.
    """

    devices: int
    dram_mib: int

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> Settings:
        """Read the configuration; what it leaves out comes from the environment.

        :raises ConfigError: an unknown name, or a value out of range.
        """
        for name in config:
            if name not in _KNOWN:
                raise config_error(
                    f"the simnpu backend has no configuration {name!r}",
                    did_you_mean(name, _KNOWN),
                )
        return cls(**{name: _value(name, config) for name in _KNOWN})

    def all_devices(self) -> tuple[Device, ...]:
        """The devices, the preferred one first."""
        return tuple(device(i, self.dram_mib * MIB) for i in range(self.devices))


def _value(name: str, config: Mapping[str, object]) -> int:
    variable, default, least, greatest = _KNOWN[name]
    where, value = f"configuration {name}", config.get(name)
    if name not in config:
        text = os.environ.get(variable)
        where, value = variable, default if text is None else text
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
            value = int(value)
    if type(value) is not int or not least <= value <= greatest:
        raise config_error(
            f"{where} is {value!r}", f"give a whole number from {least} to {greatest}"
        )
    return value


def no_options(given: Mapping[str, object]) -> None:
    """This compiler has no options of its own.

    :raises ConfigError: one was given.
    """
    for name in given:
        raise config_error(
            f"the simnpu backend has no option {name!r}",
            "leave it out; precision= is all that can be chosen",
        )
