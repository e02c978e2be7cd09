"""Examining a provider in a subprocess: it may crash or hang there, and we tell how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hardpoint.processes import signal_name
from hardpoint.registry.record import Record

# The worker sees modules exactly as this process does; `-c` alone would put the working directory
# first. `sys` is built in, so nothing is imported before the path is set.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from hardpoint.cli.doctor_worker import main; main(*sys.argv[1:])"
)
_TAIL_CHARS = 2_000
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor says of one provider.

    :param state: ``ready | unavailable | broken | denied | incompatible``.
    :param reason: why it is not ready, in words.
    :param remedy: what to do about it.
    :param details: devices, notes, and the end of what a crashed one wrote on stderr.
    """

    record: Record
    state: str
    reason: str = ""
    remedy: str = ""
    details: Mapping[str, object] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """The finding as JSON-serializable data."""
        who = {"provider": self.record.key, "origin": self.record.origin}
        return {**who, "state": self.state, "reason": self.reason, "remedy": self.remedy} | dict(
            self.details
        )


def examine(record: Record, timeout: float, stop: threading.Event) -> Finding:
    """Load and probe ``record``'s provider in a subprocess.

    :param timeout: seconds, after which it and all that it started is killed.
    :param stop: set by another thread: kill it now.
    """
    with tempfile.TemporaryDirectory(prefix="hardpoint-doctor-") as folder:
        answer, log = Path(folder, "answer.json"), Path(folder, "stderr")
        path = "\n".join(sys.path)
        command = [sys.executable, "-X", "faulthandler", "-c", _PROGRAM, path]
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*command, record.kind, record.name, str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
            try:
                in_time = _wait(process, timeout, stop)
            finally:
                _end(process)
        if not in_time:
            remedy = f"give it longer (--timeout), or leave it out: HARDPOINT_DENY={record.key}"
            return Finding(record, "broken", f"no answer within {timeout:g} s", remedy)
        if answer.exists():
            return _finding(record, json.loads(answer.read_text("utf-8")))
        tail = log.read_text("utf-8", errors="replace")[-_TAIL_CHARS:]
        return Finding(
            record,
            "broken",
            _how_it_ended(process.returncode),
            f"report it to the authors of {record.dist}, or HARDPOINT_DENY={record.key}",
            {"stderr": tail},
        )


def _wait(process: subprocess.Popen[bytes], timeout: float, stop: threading.Event) -> bool:
    """Whether the process ended by itself, in time."""
    deadline = time.monotonic() + timeout
    while process.poll() is None:
        if stop.wait(_POLL_S) or time.monotonic() > deadline:
            return False
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the process and of what it started."""
    if os.name == "posix":
        # Gone already, which is the usual case.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.wait()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} before it could answer"
    return f"crashed with signal {signal_name(-code)}"


def _finding(record: Record, answer: dict[str, object]) -> Finding:
    state = str(answer.pop("state"))
    error = answer.pop("error", None)
    if isinstance(error, dict):
        reason = error["cause"] or error["what"]
        return Finding(record, state, reason, error["remedy"], {"error": error})
    reason, remedy = str(answer.pop("reason")), str(answer.pop("remedy"))
    answer.pop("available")
    return Finding(record, state, reason, remedy, answer)
