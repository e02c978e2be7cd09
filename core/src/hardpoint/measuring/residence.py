"""Resident memory of processes, now and at most. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from hardpoint.processes import descendants

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident(process: int) -> int:
    """Bytes resident in one process; 0 where it has ended (or, off Linux, is not told cheaply)."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def resident_tree(process: int) -> int:
    """Bytes resident in a process and all that it started. Memory that they share counts twice."""
    if sys.platform == "linux":
        return sum(map(resident, (process, *descendants(process))))
    return _by_ps(process)


def peak() -> int:
    """Greatest resident bytes of this process so far.

    Linux' own ``ru_maxrss`` begins with that of the process that started this one, so the kernel's
    high-water mark of this program's memory is read instead.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_peak() -> None:
    """Let :func:`peak` begin anew, where the system can (Linux: proc(5), ``clear_refs``)."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        with contextlib.suppress(OSError):  # a sandbox may forbid it: then it is that of all so far
            clear.write_text("5")


def now() -> int:
    """Resident bytes of this process."""
    return resident(os.getpid()) or peak()


def _by_ps(process: int) -> int:
    done = subprocess.run(
        ["/bin/ps", "-axo", "pid=,ppid=,rss="], capture_output=True, text=True, check=False
    )
    children: dict[int, list[int]] = defaultdict(list)
    sizes: dict[int, int] = {}
    for line in done.stdout.splitlines():
        pid, parent, size = map(int, line.split())
        children[parent].append(pid)
        sizes[pid] = size * 1024
    total, todo = 0, [process]
    while todo:
        one = todo.pop()
        total += sizes.get(one, 0)
        todo += children.pop(one, [])
    return total
