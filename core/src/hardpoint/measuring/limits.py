"""How long and how much a child process may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hardpoint.errors import ConfigError
from hardpoint.measuring.groups import free_in_groups

# Of what is free when measuring begins, a child may use this share.
SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one child process; beyond them it is killed, with all that it started.

    :param start_seconds: to start a process, import what it needs and read the program; also to
        say what a target supports.
    :param build_seconds: to plan, compile, verify and save one candidate.
    :param load_seconds: to load a package, or use other inputs, and call it once.
    :param round_seconds: beyond the time that a round was asked to last, and that its least number
        of calls takes, as slow as the first was.
    :param memory_bytes: resident memory; ``None``: 80 % of what is free at the start.
    :raises ConfigError: one that is not above 0, so that nothing waits for ever.
    """

    start_seconds: float = 120.0
    build_seconds: float = 600.0
    load_seconds: float = 120.0
    round_seconds: float = 60.0
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"a limit's {name} is {value}", remedy="give a number above 0")


def allowed_memory(asked: int | None) -> int | None:
    """Bytes that a child may use: what the caller says, else that share of what is free now."""
    free = free_memory()
    return asked or (None if free is None else max(1, int(free * SHARE)))


def free_memory() -> int | None:
    """Bytes that can be had without swapping; ``None`` where the system does not tell."""
    found, allowed = _free_here(), free_in_groups()
    return found if allowed is None else min(allowed, allowed if found is None else found)


def _free_here() -> int | None:
    found = meminfo("MemAvailable")
    if found is not None or "SC_AVPHYS_PAGES" not in os.sysconf_names:
        return found
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def total_memory() -> int | None:
    """Bytes of memory that the machine has; ``None`` where the system does not tell."""
    found = meminfo("MemTotal")
    if found is not None or "SC_PHYS_PAGES" not in os.sysconf_names:
        return found
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def meminfo(name: str) -> int | None:
    """A line of Linux' ``/proc/meminfo`` in bytes."""
    path = Path("/proc/meminfo")
    if not path.is_file():
        return None
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    return None
