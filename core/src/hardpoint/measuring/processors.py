"""Which processors a measurement runs on. Imports no torch."""

from __future__ import annotations

import os
from pathlib import Path

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def usable() -> list[int]:
    """Processors that this process may use; empty where the system does not tell them apart."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> int:
    """Cores among the usable processors: two threads of one core count once."""
    return len({_core(cpu) for cpu in usable()}) or os.cpu_count() or 1


def callers(objective: str, threads: int) -> int:
    """Threads that call at the same time: for throughput one for each core that is computed on.

    :param threads: that a process computes with, and so (see :func:`choose`) cores that it has.
    """
    return min(cores(), threads) if objective == "throughput" else 1


def choose(threads: int) -> list[int]:
    """So many processors, of different cores as far as there are; empty: all that are usable.

    Runtimes size their thread pools by them, whatever their own option for it is called.
    """
    mine = usable()
    if threads >= len(mine):
        return []
    first: dict[str, int] = {}
    for cpu in mine:
        first.setdefault(_core(cpu), cpu)
    firsts = list(first.values())
    return sorted([*firsts, *(cpu for cpu in mine if cpu not in firsts)][:threads])


def _core(cpu: int) -> str:
    path = Path(_SIBLINGS.format(cpu))
    return path.read_text().strip() if path.is_file() else str(cpu)
