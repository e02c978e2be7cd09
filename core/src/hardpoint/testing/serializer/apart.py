"""Do a part of a check in a process of its own: what may crash, hang, fork or change limits.

The processes are forked from one helper, which has imported PyTorch and started no thread: as good
as a new interpreter each time, and two seconds quicker.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from hardpoint.interfaces.serializer import Serializer
from hardpoint.registry.registry import Registry
from hardpoint.testing.check import CheckFailed, fail
from hardpoint.testing.process import Finished, answer_of, module_path, run_python
from hardpoint.testing.serializer.bench import Bench

# (serializer, folder to work in, facts given) -> figures. Raises CheckFailed like a check.
Task = Callable[[Serializer, Path, Mapping[str, Any]], Mapping[str, Any]]

_HELPER = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n')\n"
    "from hardpoint.testing.serializer.apart import serve; serve()"
)
_ALONE = (
    "import json; from hardpoint.testing.serializer.apart import do\n"
    "answer(do(json.loads(sys.argv[1])))"
)


class Apart:
    """The suite's helper process ends with the suite."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _helper_ends(cls) -> Iterator[None]:
        yield
        if (helper := _helpers.pop(os.getpid(), None)) is not None:
            helper.close()


def apart(
    task: Task,
    bench: Bench,
    what: str,
    *,
    timeout: float = 120.0,
    environment: Mapping[str, str] | None = None,
    **facts: object,
) -> Mapping[str, Any]:
    """Run ``task``, a module-level function, with the provider opened in a process of its own.

    PyTorch has one thread there and has computed nothing, so that the task may fork.

    :param what: what it does, for the message where it does not end well.
    :param environment: variables to start a new interpreter with, instead of forking the helper.
    :param facts: JSON-serializable, for the task.
    :raises CheckFailed: as the task did, or the process crashed or hung.
    """
    order = {
        "task": [task.__module__, task.__qualname__],
        "name": bench.subject.name,
        "config": dict(bench.subject.settings.config),
        "folder": str(bench.folder),
        "suffix": bench.suffix,
        **facts,
    }
    if environment:
        done = run_python(_ALONE, json.dumps(order), timeout=timeout, environment=environment)
    else:
        if os.getpid() not in _helpers:
            _helpers[os.getpid()] = _Helper()
        done = _helpers[os.getpid()].run(order, timeout)
    given = answer_of(done, what)
    if "failed" in given:
        fail(given["failed"])
    figures: Mapping[str, Any] = given["figures"]
    return figures


class _Helper:
    """This side of the helper process."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="hardpoint-check-")
        self._pid = 0
        self._orders, self._answers = -1, -1

    def run(self, order: Mapping[str, Any], timeout: float) -> Finished:
        """Let a fork of the helper do the order."""
        if not self._pid:
            self._start()
        with tempfile.TemporaryDirectory(dir=self._folder.name) as folder:
            os.write(self._orders, json.dumps({**order, "reply": folder}).encode() + b"\n")
            child = self._number(None)
            assert child is not None, "it waited without limit"
            code = self._number(timeout)
            with contextlib.suppress(ProcessLookupError):  # all of its group has ended by itself
                os.killpg(child, signal.SIGKILL)
            if code is None:
                self._number(None)
            answer = Path(folder, "answer.json")
            value = json.loads(answer.read_text()) if answer.exists() else None
            err = Path(folder, "output").read_text(errors="replace")
        return Finished(code, "", err, value)

    def close(self) -> None:
        """End it. Where nobody calls this, it ends when there is nobody to ask it any more."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._orders)
            os.close(self._answers)
            self._pid = 0
        self._folder.cleanup()

    def _start(self) -> None:
        theirs, self._orders = os.pipe()
        self._answers, back = os.pipe()
        self._pid = os.fork() if _is_alone() else _spawn(theirs, back)
        if not self._pid:
            os.setsid()
            os.dup2(theirs, 0)
            os.dup2(back, 1)
            os.closerange(3, max(theirs, back, self._orders, self._answers) + 1)
            serve()
        os.close(theirs)
        os.close(back)

    def _number(self, timeout: float | None) -> int | None:
        """The next line that the helper writes, or ``None`` where it takes too long."""
        if not select.select([self._answers], [], [], timeout)[0]:
            return None
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self._answers, 1)
            if not more:
                fail("the kit's helper process ended; its last words are on stderr")
            line += more
        return int(line)


def _is_alone() -> bool:
    """Whether this process has one thread, so that its fork can do all that it can."""
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - the names alone
    except FileNotFoundError:
        return False


def _spawn(orders: int, answers: int) -> int:
    """A fresh interpreter as the helper: a fork of this process would lack its threads."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", _HELPER, module_path()],
        {**os.environ, "PYTHONSAFEPATH": "1"},
        file_actions=[(os.POSIX_SPAWN_DUP2, orders, 0), (os.POSIX_SPAWN_DUP2, answers, 1)],
        setsid=True,
    )


_helpers: dict[int, _Helper] = {}  # by process: a fork must not talk to its parent's helper


def serve() -> NoReturn:
    """The helper: for each order, a line with the pid of the fork that does it, and its status."""
    for line in os.fdopen(0, "rb", closefd=False):
        child = os.fork()
        if child == 0:
            _do_and_exit(json.loads(line))
        os.write(1, b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _do_and_exit(order: Mapping[str, Any]) -> None:
    """The fork: its own process group, so that whatever it starts can be ended with it."""
    status = 1
    try:
        os.setpgid(0, 0)
        # Whoever runs the suite may use these; here they end the process.
        for number in (signal.SIGALRM, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        reply, work = Path(order["reply"]), Path(order["reply"], "work")
        output = os.open(reply / "output", os.O_WRONLY | os.O_CREAT)
        for descriptor in (1, 2):
            os.dup2(output, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        work.mkdir()
        os.chdir(work)
        (reply / "answer.json").write_text(json.dumps(do(order)))
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def do(order: Mapping[str, Any]) -> dict[str, Any]:
    """Open the provider and do the task that the order names."""
    torch.set_num_threads(1)
    module, function = order["task"]
    task: Task = getattr(importlib.import_module(module), function)
    serializer = Registry().open("serializer", order["name"], order["config"])
    try:
        return {"figures": dict(task(serializer, Path(order["folder"]), order))}
    except CheckFailed as failure:
        return {"failed": str(failure)}
