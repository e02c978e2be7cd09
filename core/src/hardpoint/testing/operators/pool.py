"""Worker processes, each with one case at a time: a crash or a hang costs that case, no other."""

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hardpoint.errors import HardpointError
from hardpoint.processes import signal_name
from hardpoint.testing.operators.attempt import FIRST_STAGE, UNTOUCHED, Result, from_json
from hardpoint.testing.operators.database import Case
from hardpoint.testing.operators.worker import Job
from hardpoint.testing.process import module_path

# A worker imports torch, the database and the backend's SDK first.
START_SECONDS = 300.0
LEAVE_SECONDS = 5.0
LOOK_SECONDS = 1.0
# After so many crashes and hangs the rest is not tried: a run must end.
MOST_LOST = 10
# Wall time that a case may take, in units of its processor time: the machine has other work too.
PATIENCE = 3
_BEFORE = ("sample", "capture")  # stages in which nothing of the backend runs
_CHILD = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "
    "from hardpoint.testing.operators.worker import main; main(int(sys.argv[1]))"
)


class WorkerError(HardpointError):
    """A worker process cannot be started, or the kit itself fails in it."""


class _Worker:
    """One process, seen from outside.

    :ivar case: what it works on; ``None``: nothing. :ivar stage: how far that is.
    :ivar before: the last case that reached the backend: the process may bear traces of it.
    """

    def __init__(self, job: Job, folder: Path) -> None:
        self._log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by stop()
        self.answers, child_end = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, module_path(), str(child_end)],
                cwd=folder,
                env={**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE, stdout=self._log, stderr=self._log,
                bufsize=0, pass_fds=[child_end], start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(child_end)
        assert self.process.stdin is not None
        self._commands = self.process.stdin
        self._rest = b""
        self.case: Case | None = None
        self.before: Case | None = None
        self.stage = "start"
        self.ready = False
        self.until = time.monotonic() + START_SECONDS
        self.send(asdict(job))

    def send(self, data: Mapping[str, Any]) -> None:
        """Write a line to it."""
        with contextlib.suppress(BrokenPipeError):  # it has died: its answers end, and tell
            self._commands.write(json.dumps(data).encode() + b"\n")

    def read(self) -> list[dict[str, Any]] | None:
        """The events that have come; ``None``: it has ended."""
        data = os.read(self.answers, 1 << 20)
        if not data:
            return None
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def stop(self) -> str:
        """Kill it and all that it started; how it ended, in words, with the last it wrote."""
        self._commands.close()
        if self.ready and self.case is None:
            # It was waiting for a case, so it ends now: let the backend clean up.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVE_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # it has ended, and left none behind
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        os.close(self.answers)
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 4000))
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        self._log.close()
        how = f"killed by {signal_name(-code)}" if code < 0 else f"exit status {code}"
        return "; ".join([how, *(line[:200] for line in last)])


class Pool:
    """Runs cases in ``workers`` processes.

    :param known: result of an earlier run by case: taken where the sample is the same.
    :param note: called with each result; a later one of the same case takes its place.
    :ivar lost: cases that crashed or hung in the backend.
    :ivar remembered: how many results were ``known``.
    :ivar untried: cases left out because too many were lost.
    """

    def __init__(
        self,
        job: Job,
        workers: int,
        known: Mapping[Case, Result],
        note: Callable[[Result], None],
    ) -> None:
        self._job = job
        self._count = max(1, workers)
        self._known = known
        self._note = note
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._suspects: dict[Case, Result] = {}
        self.lost = 0
        self.remembered = 0
        self.untried = 0

    def run(self, choose: Callable[[Sequence[Case]], Sequence[Case]]) -> None:
        """Run the cases that ``choose`` takes of those that the database has.

        :raises WorkerError: no worker starts, or the kit fails in one.
        """
        with tempfile.TemporaryDirectory(prefix="hardpoint-operators-") as folder:
            self._folder = Path(folder)
            self._choose = choose
            self._waiting: list[Case] | None = None
            try:
                self._workers = [_Worker(self._job, self._folder) for _ in range(self._count)]
                while self._workers:
                    self._turn()
            finally:
                for worker in self._workers:
                    worker.stop()

    def _turn(self) -> None:
        """Hear the workers that said something; part with those that ended or take too long."""
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                selector.register(worker.answers, selectors.EVENT_READ, worker)
            first = min(worker.until for worker in self._workers)
            ready = selector.select(min(LOOK_SECONDS, max(0.0, first - time.monotonic())))
        spoke = [key.data for key, _ in ready]
        for worker in spoke:
            self._listen(worker)
        for worker in list(self._workers):
            if worker in spoke:
                continue
            if worker.process.poll() is not None:
                # Something that it started holds its end of the answers open.
                self._lose(worker, "crashed", "")
            elif worker.until <= time.monotonic():
                self._lose(worker, "hung", f"no answer within {PATIENCE * self._job.seconds:g} s")

    def _listen(self, worker: _Worker) -> None:
        events = worker.read()
        if events is None:
            self._lose(worker, "crashed", "")
            return
        for event in events:
            self._take(worker, event)

    def _take(self, worker: _Worker, event: dict[str, Any]) -> None:
        kind = event.pop("event")
        if kind == "stage":
            worker.stage = event["stage"]
            return
        if kind == "failed":
            raise WorkerError("a worker of the operator checks failed", cause=event["message"])
        if kind == "ready":
            worker.ready = True
            if self._waiting is None:
                chosen = self._choose([Case(**case) for case in event["cases"]])
                self._waiting = list(reversed(chosen))
        else:
            assert worker.case is not None
            if kind == "same":
                self.remembered += 1
            result = self._known[worker.case] if kind == "same" else from_json(event)
            self._end(result)
            if kind == "done" and result.state not in UNTOUCHED:
                worker.before = worker.case
            worker.case = None
        self._give(worker)

    def _give(self, worker: _Worker) -> None:
        """Its next case; or end it, where there is none."""
        if not self._waiting:
            self._workers.remove(worker)
            worker.stop()
            return
        case = self._waiting.pop()
        worker.case, worker.stage = case, "sample"
        worker.until = time.monotonic() + PATIENCE * self._job.seconds
        known = self._known.get(case)
        worker.send({"case": asdict(case), "known": known.sample if known else ""})

    def _lose(self, worker: _Worker, state: str, words: str) -> None:
        """A worker died, or is killed now; its case bears it, and another worker goes on."""
        case, stage, ready = worker.case, worker.stage, worker.ready
        self._workers.remove(worker)
        ended = worker.stop()
        if not ready:
            self._failed_starts += 1
            if self._failed_starts >= 2 and not any(w.ready for w in self._workers):
                raise WorkerError(
                    "no worker of the operator checks starts",
                    cause=ended if state == "crashed" else f"none was ready in {START_SECONDS:g} s",
                )
        if case is not None:
            if "SIGXCPU" in ended:
                state, words = "hung", f"more than {self._job.seconds:g} s of processor time"
            self._blame(case, worker.before, stage, state, words or ended)
        if self.lost >= MOST_LOST:
            self.untried += len(self._waiting or ())
            self._waiting = []
        if self._waiting is None or self._waiting:
            self._workers.append(_Worker(self._job, self._folder))

    def _blame(self, case: Case, before: Case | None, stage: str, state: str, ended: str) -> None:
        """Say whose fault it is that a process ended in ``stage`` of ``case``."""
        if stage not in _BEFORE:
            asked = " (asked what it supports)" if stage == FIRST_STAGE else ""
            self._end(_result(case, state, f"in {stage}{asked}: {ended}"))
            self.lost += 1
        elif state == "crashed" and before is not None and case not in self._suspects:
            # PyTorch's own code, or what the case before left behind? The case once more tells.
            self._suspects[case] = _result(before, state, f"after its call: {ended}")
            assert self._waiting is not None
            self._waiting.append(case)
        else:
            self._suspects.pop(case, None)
            self._end(
                _result(case, "not_exportable", f"PyTorch itself {state} in {stage}: {ended}")
            )

    def _end(self, result: Result) -> None:
        """A case is done; if it had crashed before and has not now, that was another's doing."""
        self._note(result)
        suspect = self._suspects.pop(result.case, None)
        if suspect is not None:
            self._note(suspect)
            self.lost += 1


def _result(case: Case, state: str, reason: str) -> Result:
    return Result(case.op, case.variant, case.dtype, state, reason)
