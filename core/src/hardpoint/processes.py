"""Other processes: how they ended, in words, and ending all that one has started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from pathlib import Path


def signal_name(number: int) -> str:
    """``"SIGSEGV"``; ``"signal 40"`` for one without a name of its own, such as a real-time one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def descendants(process: int) -> list[int]:
    """Process ids of all that ``process`` started, through and through; Linux, else empty."""
    children: dict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text("utf-8", "replace")
        except OSError:  # it has just ended
            continue
        # "pid (name) state parent ...", and a name may hold spaces and brackets.
        children[int(text.rpartition(")")[2].split()[1])].append(int(status.parent.name))
    found, todo = [], [process]
    while todo:
        new = children.pop(todo.pop(), [])
        found += new
        todo += new
    return found


def kill_tree(leader: int) -> None:
    """Kill a process that leads its own group, and all that it started, in whatever group."""
    started = descendants(leader)
    # Gone already, or (on macOS) a group of which nothing but a zombie is left.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
    for process in started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)
