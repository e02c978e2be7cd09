"""Run the suite in a child process, check by check, and outlive what kills it.

The child is pytest with the kit; what it finds comes back through a journal. Where the child dies
or stands still, the check that was running is the culprit: it is recorded as crashed, and a new
child goes on after it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hardpoint.errors import HardpointError
from hardpoint.processes import signal_name
from hardpoint.testing.journal import Result, read
from hardpoint.testing.process import kill_group, module_path
from hardpoint.testing.subject import Subject

Watch = Callable[[Mapping[str, Any]], None]

_START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); import pytest; "
    "sys.exit(pytest.main(sys.argv[1:]))"
)
_POLL_SECONDS = 0.05
_START_SECONDS = 120.0  # for pytest and torch to be imported, before the first check
_ENDED = (0, 1, 5)  # pytest: all passed, some failed, none left to run
_TAIL = 2_000  # characters of output that an error shows


@dataclass
class _State:
    """What the journal has told so far."""

    offset: int = 0
    running: dict[str, Any] | None = None
    since: float = 0.0  # when that began, in time.monotonic's seconds
    heard: float = 0.0  # when it last told something
    finished: bool = False  # every check has ended


def run_suite(
    subject: Subject,
    *,
    checks: Sequence[str] = (),
    patience: float = 700.0,
    watch: Watch = lambda event: None,
) -> list[Result]:
    """Run the suite of ``subject``'s kind on it.

    :param checks: names of the checks to run; empty: all.
    :param patience: seconds that a check may go without a sign of life.
    :param watch: called with every event of the journal: ``begin``, ``progress``, ``end``.
    :raises HardpointError: the suite itself could not run.
    """
    found: dict[str, Result] = {}
    with tempfile.TemporaryDirectory(prefix="hardpoint-check-") as name:
        folder = Path(name)
        (folder / "work").mkdir()
        (folder / "tmp").mkdir()  # what a killed child leaves behind goes with it
        for round_ in range(1_000):
            journal, output = folder / f"journal-{round_}", folder / f"output-{round_}"
            state = _State(heard=time.monotonic())
            with output.open("wb") as out:
                child = subprocess.Popen(
                    _command(subject, journal, checks, found), cwd=folder / "work",
                    env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": "",
                         "TMPDIR": str(folder / "tmp")},
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                )  # fmt: skip
                try:
                    code = _follow(child, journal, state, found, patience, watch)
                finally:
                    kill_group(child)
            if state.running is None and (code in _ENDED or state.finished):
                if code not in _ENDED:
                    _blame_the_last(found, code, output)
                return list(found.values())
            if state.running is None:
                raise HardpointError(
                    f"the conformance suite could not run on {subject.key}",
                    cause=f"its process ended with {_ending(code)} outside any check:\n"
                    + _tail(output),
                    remedy="try the same with pytest: -p hardpoint.testing --pyargs "
                    f"hardpoint.testing.suite --provider {subject.key}",
                )
            culprit = _crashed(subject, state, code, patience, output)
            found[culprit.name] = culprit
            watch({"event": "end", **culprit.to_json()})
    raise AssertionError("more rounds than there can be checks")


def _command(
    subject: Subject, journal: Path, checks: Sequence[str], found: Mapping[str, Result]
) -> list[str]:
    effort, settings = subject.effort, subject.settings
    given = [
        "-p", "hardpoint.testing", "-p", "no:cacheprovider", "--assert=plain", "-c", os.devnull,
        "--rootdir", str(journal.parent), "-q", "--pyargs", "hardpoint.testing.suite",
        "--provider", subject.key, "--journal", str(journal),
        "--checks", ",".join(checks), "--except-checks", ",".join(found),
        "--samples", effort.samples, "--workers", str(effort.workers),
    ]  # fmt: skip
    if effort.cache:
        given += ["--samples-cache", str(Path(effort.cache).absolute())]
    if settings.path is not None:
        given += ["--settings", str(settings.path.absolute())]
    return [sys.executable, "-X", "faulthandler", "-c", _START, module_path(), *given]


def _follow(
    child: subprocess.Popen[bytes],
    journal: Path,
    state: _State,
    found: dict[str, Result],
    patience: float,
    watch: Watch,
) -> int | None:
    """Read the journal until the child ends; its exit code, or ``None`` if it stood still."""
    while True:
        ended = child.poll() is not None
        for offset, event in read(journal, state.offset):
            state.offset, state.heard = offset, time.monotonic()
            if event["event"] == "begin":
                state.running, state.since = event, time.monotonic()
            elif event["event"] == "finished":
                state.finished = True
            elif event["event"] == "end":
                state.running = None
                told = {key: value for key, value in event.items() if key != "event"}
                found[told["name"]] = Result(**told)
            watch(event)
        if ended:
            return child.returncode
        limit = patience if state.offset else max(patience, _START_SECONDS)
        if time.monotonic() - state.heard > limit:
            return None
        time.sleep(_POLL_SECONDS)


def _crashed(
    subject: Subject, state: _State, code: int | None, patience: float, output: Path
) -> Result:
    """The result of the check that took the process down; known, where the settings expect it."""
    running = state.running or {}
    if code is None:
        reason = f"it gave no sign of life for {patience:g} s, and was killed"
    else:
        reason = f"it took the whole process down: {_ending(code)}\n{_tail(output)}"
    expected = subject.settings.expected_failures.get(running["name"])
    return Result(
        running["name"], running["level"], running["title"],
        "crashed" if expected is None else "known", reason if expected is None else expected,
        round(time.monotonic() - state.since, 3),
    )  # fmt: skip


def _blame_the_last(found: dict[str, Result], code: int | None, output: Path) -> None:
    """Every check had ended, then the process did not end well: the last check bears it."""
    name, last = next(reversed(found.items()))
    reason = f"after this check, the last one, the process ended badly: {_ending(code)}\n"
    found[name] = replace(last, outcome="crashed", reason=reason + _tail(output))


def _tail(output: Path) -> str:
    return output.read_text(errors="replace")[-_TAIL:].strip()


def _ending(code: int | None) -> str:
    if code is None:
        return "no sign of life"
    return f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
