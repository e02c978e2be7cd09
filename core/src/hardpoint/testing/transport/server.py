"""The process that ranks are forked from: PyTorch imported, one thread, nothing opened.

A rank made so is as clean as a new interpreter, and starts in milliseconds. The server knows what a
rank leaves running: orphans become its own children.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

from hardpoint.testing.journal import Journal
from hardpoint.testing.transport.traces import (
    describe_process,
    processes_of,
    settled,
    shared_memory,
)

_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
_POLL_SECONDS = 0.003
_DUMP_SECONDS = 0.2


def serve() -> None:
    """Do what each line of standard input orders, a line of answer each, until it closes."""
    # What a library prints must not mix with the answers.
    control = os.dup(1)
    os.dup2(2, 1)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for line in iter(sys.stdin.readline, ""):
        answer = _launch(json.loads(line), control)
        try:
            os.write(control, json.dumps(answer).encode() + b"\n")
        except BrokenPipeError:  # nobody waits any more
            return


def _launch(order: dict[str, Any], control: int) -> dict[str, Any]:
    """Run one set of ranks to its end. In a rank this does not return."""
    importlib.import_module(order["module"])  # once for all ranks of all orders
    gc.freeze()  # ranks need not go through what they share with us when they end
    shared = shared_memory()
    started = {}
    for rank in range(order["size"]):
        pid = os.fork()
        if pid == 0:
            os.close(control)
            _play(order, rank)
        started[pid] = rank
    awaited = set(range(order["size"])) - set(order["expendable"])
    codes = _wait(started, awaited, order["seconds"])
    _end([pid for pid, rank in started.items() if rank not in codes])
    # What ends a moment after its rank is not left behind.
    _, strays = settled(_strays, lambda found: not found)
    while more := _strays():  # to the last grandchild
        for pid in more:
            os.kill(pid, signal.SIGKILL)
    _, left = settled(lambda: shared_memory() - shared, lambda found: not found)
    return {"codes": codes, "processes": list(strays.values()), "shared_memory": sorted(left)}


def _wait(started: dict[int, int], awaited: set[int], seconds: float) -> dict[int, int]:
    """Exit statuses of the ranks that ended within the time."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    while not awaited <= codes.keys() and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in started:
            codes[started[pid]] = os.waitstatus_to_exitcode(status)
        # Nothing is sent while ranks run: what can be read is the end, and nobody waits any more.
        elif pid == 0 and select.select([0], [], [], _POLL_SECONDS)[0]:
            break
    return codes


def _end(late: list[int]) -> None:
    """End ranks that have not ended by themselves."""
    for pid in late:
        os.kill(pid, signal.SIGUSR1)  # it writes where it is
    if late:
        time.sleep(_DUMP_SECONDS)
    for pid in late:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _strays() -> dict[int, str]:
    """Processes that a rank left running. Reaps those that have ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            return {}
    return {pid: describe_process(pid) for pid in processes_of(os.getpid())}


def _play(order: dict[str, Any], rank: int) -> NoReturn:
    """Be a rank."""
    folder = Path(order["folder"])
    for descriptor, name, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, str(folder / f"rank-{rank}.out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(name, flags, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    faulthandler.register(
        signal.SIGUSR1, all_threads=False
    )  # works though another thread holds the GIL for ever
    journal = Journal(folder / f"rank-{rank}.jsonl")
    try:
        request = pickle.loads((folder / "request.pickle").read_bytes())  # noqa: S301 - our own
        part = getattr(sys.modules[order["module"]], order["function"])
        scene = sys.modules["hardpoint.testing.transport.ranks.scene"]
        part(scene.Scene(rank, order["size"], folder, journal, request))
        journal.write("end")
    except BaseException as error:
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        journal.write("raised", type=type(error).__name__, message=str(error), place=place)
        sys.stderr.flush()
        os._exit(1)  # an orderly exit may hang on what is broken
    sys.exit(0)
