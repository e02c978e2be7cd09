"""The options of ``transport:gloo``, checked when it is opened."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from hardpoint import ConfigError
from hardpoint_gloo.origin import origin


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose.

    :param interface: network interface to listen on, or several separated by commas; default:
        the environment's ``GLOO_SOCKET_IFNAME``, else the one that the host's name resolves to.
    :param hostname: name or address of this host to listen on, instead of an interface.
    :param threads: threads that run collectives, ≥ 1; default: two per interface.
    """

    interface: str = ""
    hostname: str = ""
    threads: int | None = None

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> Options:
        """:raises ConfigError: an option that does not exist, or a value it cannot have."""
        known = [field.name for field in fields(cls)]
        for name in config:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
                raise _wrong(f"the gloo transport has no option {name!r}", hint)
        interface = _text(config, "interface")
        hostname = _text(config, "hostname")
        if interface and hostname:
            raise _wrong(
                "the gloo transport was given both 'interface' and 'hostname'", "give one of them"
            )
        if interface and not all(interface.split(",")):
            raise _wrong(
                f"option 'interface' of the gloo transport names an empty interface: {interface!r}",
                "separate names by single commas, e.g. 'eth0,eth1'",
            )
        return cls(interface, hostname, _threads(config))


def _text(config: Mapping[str, object], name: str) -> str:
    value = config.get(name, "")
    if not isinstance(value, str):
        raise _wrong(f"option {name!r} of the gloo transport is {value!r}, not text", "")
    return value.replace(" ", "")


def _threads(config: Mapping[str, object]) -> int | None:
    value = config.get("threads")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _wrong(
            f"option 'threads' of the gloo transport is {value!r}", "give a whole number from 1 up"
        )
    return value


def _wrong(what: str, remedy: str) -> ConfigError:
    return ConfigError(what, provider="transport:gloo", origin=origin(), remedy=remedy)
