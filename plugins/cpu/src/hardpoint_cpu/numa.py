"""Option ``numa``: which processors a node of the machine has for this thread."""

from __future__ import annotations

import os
from pathlib import Path

from hardpoint import HardpointError
from hardpoint_cpu import threads
from hardpoint_cpu.host import NODES
from hardpoint_cpu.origin import ORIGIN, PROVIDER

_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
# Any of these makes OpenMP place its threads by itself (libgomp's manual, "Environment Variables").
_PLACING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


def processors(
    node: int, error: type[HardpointError], folder: Path | None = None
) -> frozenset[int]:
    """The node's logical processors that this thread may use, as numbers of the system.

    :param error: what is raised if there are none, or if no thread can be kept on them.
    :param folder: where Linux tells of its nodes. A machine without is one node, 0.
    """

    def refused(cause: str, remedy: str) -> HardpointError:
        return error(
            f"nothing can be bound to NUMA node {node}",
            provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy,
        )  # fmt: skip

    if not hasattr(os, "sched_getaffinity"):
        raise refused("this system binds no threads to processors", "leave the option numa out")
    if threads.places_its_own():
        told = [f"{name}={os.environ[name]}" for name in _PLACING if name in os.environ]
        raise refused(
            f"OpenMP places its threads by itself ({', '.join(told) or 'omp_get_proc_bind()'})",
            f"start the process without {', '.join(_PLACING)}, or leave the option numa out",
        )
    allowed = frozenset(os.sched_getaffinity(0))
    lists = {
        int(path.parent.name.removeprefix("node")): _numbers(path.read_text())
        for path in (folder or NODES).glob("node[0-9]*/cpulist")
    }
    # Some nodes are memory alone.
    known = {number: found for number, found in lists.items() if found} or {0: allowed}
    if node not in known:
        there = ", ".join(map(str, sorted(known)))
        raise refused(f"this machine has processors on the nodes {there}", "name one of them")
    usable = known[node] & allowed
    if not usable:
        raise refused(
            "the calling thread may use none of its processors",
            "name another node, or allow it these (taskset, the container's cpuset)",
        )
    return usable


def cores(among: frozenset[int]) -> int:
    """Cores among logical processors: two threads of one core count once."""
    paths = {cpu: Path(_SIBLINGS.format(cpu)) for cpu in among}
    return len({p.read_text().strip() if p.is_file() else str(c) for c, p in paths.items()})


def _numbers(text: str) -> frozenset[int]:
    """Those of a list like ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
