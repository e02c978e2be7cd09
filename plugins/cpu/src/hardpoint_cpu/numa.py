"""Option ``numa``: calls run on the cores of one node of the machine.

Linux binds threads, not only processes, and what a bound thread starts is bound as it is, so that
OpenMP's threads are, too. So calls are made by a thread of the executable's own, and the caller's
process stays as it was. Memory that is touched first by such a thread comes from its node, unless
that has none left (Linux, "NUMA Memory Policy": local allocation).
"""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import torch

from hardpoint import Executable, HardpointError
from hardpoint_cpu.host import NODES
from hardpoint_cpu.origin import ORIGIN, PROVIDER

Result = TypeVar("Result")


def cores(node: int, error: type[HardpointError], folder: Path | None = None) -> frozenset[int]:
    """The node's cores that this process may use, as numbers of the system.

    :param error: what is raised if there are none.
    :param folder: where Linux tells of its nodes. A machine without is one node, 0.
    """
    folder = folder or NODES

    def refused(cause: str, remedy: str) -> HardpointError:
        return error(
            f"nothing can be bound to NUMA node {node}",
            provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy,
        )  # fmt: skip

    if not hasattr(os, "sched_getaffinity"):
        raise refused("this system binds no threads to cores", "leave the option numa out")
    allowed = frozenset(os.sched_getaffinity(0))
    known = {
        int(path.parent.name.removeprefix("node")): _numbers(path.read_text())
        for path in folder.glob("node[0-9]*/cpulist")
    } or {0: allowed}
    if node not in known:
        there = ", ".join(map(str, sorted(known)))
        raise refused(f"this machine has the nodes {there}", "name one of them")
    usable = known[node] & allowed
    if not usable:
        raise refused(
            "this process may use none of its cores", "name another node, or allow it the cores"
        )
    return usable


def _numbers(text: str) -> frozenset[int]:
    """Those of a list like ``0-3,8``."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


class OnNode(Executable):
    """An executable that is opened and called by a thread bound to cores. Calls take turns.

    :param opened: gives the executable.
    """

    def __init__(
        self, opened: Callable[[], Executable], node: int, bound_to: frozenset[int]
    ) -> None:
        self._node, self._cores = node, bound_to
        self._begin()
        self._inner = self._there(opened)

    def _begin(self) -> None:
        self._thread = ThreadPoolExecutor(
            1, f"hardpoint-cpu on node {self._node}", os.sched_setaffinity, (0, self._cores)
        )
        self._process = os.getpid()  # last: another thread that reads it finds the new one

    def _there(self, call: Callable[..., Result], *given: object) -> Result:
        if self._process != os.getpid():  # threads do not come through a fork
            self._begin()
        return self._thread.submit(contextvars.copy_context().run, call, *given).result()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run, on the node."""
        return self._there(self._inner, *inputs)

    def facts(self) -> Mapping[str, object]:
        """The inner one's, with the node and its cores."""
        found = self._there(self._inner.facts)
        return {**found, "numa": self._node, "cores": sorted(self._cores)}

    def close(self) -> None:
        """Let go of the thread and of what the inner one holds."""
        self._inner.close()
        self._thread.shutdown()
