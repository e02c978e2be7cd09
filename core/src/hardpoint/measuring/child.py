"""A child process seen from its parent: asked, watched, stopped for a while, killed.

A fresh interpreter, never a fork: forked children of a process that has run PyTorch's thread pools
hang (research/backends.md). Nothing is pickled: lines of JSON, and files of our own format.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hardpoint.measuring.residence import resident, resident_tree
from hardpoint.measuring.results import Failure, FailureKind
from hardpoint.processes import kill_tree, signal_name
from hardpoint.units import size

_LOOK_SECONDS = 0.05  # between two looks at a child's memory
_TREE_SECONDS = 0.5  # and at that of all that it started
_LEAVE_SECONDS = 5.0
# A group of its own in the parent's session: when the parent dies, the system wakes and ends those
# of the group that it had stopped (POSIX, orphaned process groups), so that none is left behind.
_CHILD = (
    "import os, sys; os.setpgid(0, 0); sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from hardpoint.measuring.{module} import main; main(int(sys.argv[1]))"
)


class LostError(Exception):
    """The child crashed, hung, took too much memory, or answers that it failed."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(str(failure))


class Child:
    """One process that answers.

    :param module: of this package, with ``main(answers)``. :param job: its first line.
    :param folder: where it runs and logs. :param memory: bytes that it may use.
    :param tree: what it starts counts as well: compilers. Looking for them costs milliseconds,
        which must not fall into what is timed.
    :ivar stage: what it said last that it does. :ivar last_stage: that before its last answer.
    """

    def __init__(
        self,
        module: str,
        job: Mapping[str, Any],
        *,
        folder: Path,
        environment: Mapping[str, str],
        memory: int | None,
        tree: bool,
    ) -> None:
        self.stage = self.last_stage = "start"
        self._memory, self._tree, self._next_tree = memory, tree, 0.0
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by stop()
        self._answers, theirs = os.pipe()
        self._rest = b""
        self._events: deque[dict[str, Any]] = deque()
        self._ended = False
        started = time.monotonic()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD.format(module=module), _module_path(), str(theirs)],
                cwd=folder,
                env={**os.environ, "PYTHONSAFEPATH": "1", **environment},
                stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
                bufsize=0, pass_fds=[theirs],
            )  # fmt: skip
        finally:
            os.close(theirs)
        self._send({**job, "started": started})

    def ask(
        self,
        command: Mapping[str, Any],
        seconds: float,
        on_stage: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Send a command and wait for its answer; see :meth:`wait`."""
        self.stage = str(command["do"])
        self._send(command)
        return self.wait(seconds, on_stage)

    def wait(self, seconds: float, on_stage: Callable[[str], None] | None = None) -> dict[str, Any]:
        """The next answer.

        :param seconds: until it counts as hung. :param on_stage: told of each new stage.
        :raises LostError: it crashed, hung, takes too much memory, or says that it failed.
        """
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while True:
                heard = bool(self._events or selector.select(_LOOK_SECONDS))
                if heard and not self._events:
                    self._read()
                while self._events:
                    event = self._events.popleft()
                    if event["event"] == "stage":
                        self.stage = event["stage"]
                        if on_stage:
                            on_stage(self.stage)
                    elif event["event"] == "failed":
                        raise self._lost(event["kind"], event["reason"], event.get("stage"))
                    else:
                        self.last_stage, self.stage = self.stage, "idle"
                        return event
                now = time.monotonic()
                if not heard and self._process.poll() is not None:
                    raise self._crashed()  # something it started holds its end of the line open
                if now > until:
                    raise self._lost("hung", f"no answer within {seconds:g} s")
                self._watch(now)

    def pause(self) -> None:
        """Stop it: whatever its threads wait for, they take no time from the others."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def resident(self) -> int:
        """Bytes resident in it and all that it started."""
        return resident_tree(self._process.pid)

    def stop(self) -> str:
        """End it and all that it started; how it ended, in words, with the last that it wrote."""
        if self._ended:
            return ""
        self._ended = True
        try:
            self.resume()
            self._send({"do": "leave"})
            with contextlib.suppress(subprocess.TimeoutExpired):
                # One that waits for commands leaves by itself, so that its runtime cleans up.
                self._process.wait(_LEAVE_SECONDS if self.stage == "idle" else 0.0)
        finally:  # Ctrl-C meanwhile must not leave it behind
            self._kill()
        code: int | None = None
        # A driver that hangs holds it in the kernel: then nobody can end it, and nobody waits.
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_LEAVE_SECONDS)
        assert self._process.stdin is not None
        self._process.stdin.close()
        os.close(self._answers)
        self._log.seek(max(0, self._log.seek(0, os.SEEK_END) - 4000))
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        self._log.close()
        how = _ending(code)
        return "; ".join([how, *(line.strip()[:200] for line in last)])

    def _send(self, data: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died: its answers end, and tell
            self._process.stdin.write(json.dumps(data).encode() + b"\n")

    def _read(self) -> None:
        data = os.read(self._answers, 1 << 20)
        if not data:
            raise self._crashed()
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._events.extend(json.loads(line) for line in lines)

    def _watch(self, now: float) -> None:
        look = resident
        if self._tree and now > self._next_tree:
            look, self._next_tree = resident_tree, now + _TREE_SECONDS
        used = look(self._process.pid)
        if self._memory is not None and used > self._memory:
            raise self._lost(
                "memory", f"it took {size(used)}, at most {size(self._memory)} is allowed"
            )

    def _crashed(self) -> LostError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVE_SECONDS)  # its answers end a moment before it does
        return self._lost("crashed", self.stop())

    def _lost(self, kind: FailureKind, reason: str, stage: str | None = None) -> LostError:
        stage = self.stage if stage is None else stage
        self.stop()
        return LostError(Failure(kind, stage, reason))

    def _kill(self) -> None:
        kill_tree(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()  # where it had no time yet to lead a group

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)


def _ending(code: int | None) -> str:
    if code is None:
        return "it hangs in the system's kernel, where it cannot be killed"
    return f"killed by {signal_name(-code)}" if code < 0 else f"exit status {code}"


def _module_path() -> str:
    """This process's ``sys.path``, a line each: what it finds, the child finds.

    Without the current folder, where a module can stand in for a real one.
    """
    return "\n".join(str(Path(folder).absolute()) for folder in sys.path if folder)
