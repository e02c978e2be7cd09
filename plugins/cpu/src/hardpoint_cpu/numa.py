"""Option ``numa``: which processors a node of the machine has for this thread."""

from __future__ import annotations

import os
from pathlib import Path

from hardpoint import HardpointError
from hardpoint_cpu.host import NODES
from hardpoint_cpu.origin import ORIGIN, PROVIDER

# By these OpenMP places its threads itself, wherever the thread that starts them is bound
# (OpenMP 5.2, "Environment Variables"; libgomp's and Intel's manuals for the last two).
_PLACED = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY")


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
    for name in _PLACED:
        value = os.environ.get(name, "")
        if value and value.lower() not in ("false", "none", "disabled"):
            raise refused(
                f"{name} is {value!r}: OpenMP would place its threads itself",
                f"unset {name}, or leave the option numa out",
            )
    allowed = frozenset(os.sched_getaffinity(0))
    told = {
        int(path.parent.name.removeprefix("node")): _numbers(path.read_text())
        for path in (folder or NODES).glob("node[0-9]*/cpulist")
    }
    # Some nodes are memory alone.
    known = {number: found for number, found in told.items() if found} or {0: allowed}
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


def _numbers(text: str) -> frozenset[int]:
    """Those of a list like ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)
