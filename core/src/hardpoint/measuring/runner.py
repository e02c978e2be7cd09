"""The process that runs one package, or the program in eager PyTorch, and times rounds of calls."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.measuring import residence
from hardpoint.measuring.serving import Line, pin

if TYPE_CHECKING:
    import torch

    from hardpoint.measuring.inputs import Inputs

# A round of a tiny model ends after so many calls: their times travel as text.
MOST_CALLS = 2000


def main(answers: int) -> None:
    """Start what the job names, then time rounds as the parent says."""
    line = Line(answers)
    job = line.next()
    from hardpoint.measuring.builder import failure_of

    try:
        line.say("stage", stage="importing")
        worker = _Worker(job, line)
        for command in line.commands():
            if command["do"] == "use":
                line.say("started", **worker.use(Path(command["inputs"])))
            else:
                line.say("stage", stage="call")
                line.say("round", **worker.round(command))
    except Exception as error:
        kind, reason = failure_of(error)
        line.say("failed", kind=kind, reason=reason)


class _Worker:
    """One model, ready to be timed.

    :param job: ``started`` (``time.monotonic()`` of the parent when it started this process),
        ``package`` or ``program``, ``inputs``, ``registry``, ``threads``, ``processors``.
    """

    def __init__(self, job: dict[str, Any], line: Line) -> None:
        pin(job["threads"], job["processors"])
        from hardpoint.measuring.inputs import read_inputs
        from hardpoint.registry.handover import rebuild

        registry = rebuild(job["registry"])
        imported, base = time.monotonic(), residence.now()
        given = read_inputs(Path(job["inputs"]))
        reading = time.monotonic() - imported
        line.say("ready")
        line.say("stage", stage="load")
        before = time.monotonic()
        self._model: Any = None
        if job["package"] is not None:
            from hardpoint.package.load import load_package

            self._model = load_package(Path(job["package"]), registry=registry)
            self._run = self._model.run
            self._facts = _facts(self._model, job["precisions"])
        else:
            from hardpoint.measuring.eager import Eager
            from hardpoint.measuring.workload import read_program_file

            self._run = Eager(read_program_file(Path(job["program"])))
            self._facts = {}
        loaded = time.monotonic()
        self._schedule = self._model.schedule if self._model is not None else None
        writes = self._schedule is not None and bool(self._schedule.state_writes)
        # As it was captured: each call starts from it.
        self._state = {n: t.clone() for n, t in self._model.held.items()} if writes else {}
        line.say("stage", stage="first call")
        self._take(given)
        answer = self._first()
        cold = loaded - job["started"] - reading + answer["first_seconds"]
        line.say(
            "started",
            cold_seconds=cold,
            import_seconds=imported - job["started"],
            load_seconds=loaded - before,
            base_bytes=base,
            facts=self._facts,
            **answer,
        )

    def use(self, path: Path) -> dict[str, Any]:
        """Go on with other inputs: call once, and compare."""
        from hardpoint.measuring.inputs import read_inputs

        residence.forget_peak()  # what other inputs took is not theirs
        self._take(read_inputs(path))
        return self._first()

    def round(self, command: dict[str, Any]) -> dict[str, Any]:
        """Time calls for ``seconds``, after ``warmups`` that are not timed, from ``callers``."""
        gc.collect()
        gc.disable()
        try:
            for _ in range(command["warmups"]):
                self._timed(self._fresh())
            callers = 1 if self._keeps_state else command["callers"]
            if callers == 1:
                calls = self._calls(command["seconds"])
                seconds = sum(calls)  # what puts state and inputs back is not the model's
            else:
                calls, seconds = self._together(callers, command["seconds"])
        finally:
            gc.enable()
        return {"calls": calls, "seconds": seconds, "count": len(calls),
                "callers": callers, "peak_bytes": residence.peak()}  # fmt: skip

    def _take(self, given: Inputs) -> None:
        self._given = given
        self._inputs = [t.clone() for t in given.inputs]
        schedule = self._schedule
        self._changes_inputs = schedule is not None and bool(schedule.input_writes)
        self._keeps_state = bool(self._state) or self._changes_inputs
        self._wait = self._waiting()

    def _first(self) -> dict[str, Any]:
        from hardpoint.measuring.agreement import errors

        start = time.perf_counter()
        got = self._run(self._fresh())
        self._wait()
        first = time.perf_counter() - start
        given = self._given
        found = errors(got, given.expected, given.names) if given.expected else None
        return {
            "first_seconds": first,
            "errors": None if found is None else found.to_json(),
            "memory_bytes": residence.peak(),
        }

    def _fresh(self) -> Sequence[torch.Tensor]:
        """Inputs and state as the first call had them."""
        for name, value in self._state.items():
            self._model.held[name].copy_(value)
        return [t.clone() for t in self._given.inputs] if self._changes_inputs else self._inputs

    def _timed(self, inputs: Sequence[torch.Tensor]) -> float:
        start = time.perf_counter()
        self._run(inputs)
        self._wait()
        return time.perf_counter() - start

    def _calls(self, seconds: float) -> list[float]:
        calls: list[float] = []
        left = seconds
        while left > 0 and len(calls) < MOST_CALLS:
            calls.append(self._timed(self._fresh()))
            left -= calls[-1]
        return calls

    def _together(self, callers: int, seconds: float) -> tuple[list[float], float]:
        """Seconds of each call, and from the common start to the last end.

        Each thread calls once before: a runtime may make what it needs for a new thread then.
        """
        found: list[list[float]] = [[] for _ in range(callers)]
        failures: list[Exception] = []
        starts: list[float] = []
        begin = threading.Barrier(callers, action=lambda: starts.append(time.perf_counter()))

        def call(calls: list[float]) -> None:
            try:
                self._timed(self._inputs)
                begin.wait()
                until = starts[0] + seconds
                while time.perf_counter() < until and len(calls) < MOST_CALLS:
                    calls.append(self._timed(self._inputs))
            except Exception as error:
                failures.append(error)
                begin.abort()  # the others would wait for this one for ever

        threads = [threading.Thread(target=call, args=(calls,)) for calls in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = time.perf_counter()
        if failures:
            raise failures[0]
        return [call for calls in found for call in calls], ended - starts[0]

    def _waiting(self) -> Callable[[], None]:
        """What waits until the devices of inputs and segments have done what they were asked."""
        from hardpoint.runtime.settling import settling

        segments = () if self._model is None else self._model.segments
        places = [*(t.device for t in self._inputs), *(s.device.torch_device for s in segments)]
        return settling(places)


def _facts(model: Any, precisions: dict[str, Any]) -> dict[str, Any]:
    """What each segment's runtime does here: no narrower than was asked for."""
    from hardpoint.compiler.executed import executed

    return {s.id: dict(executed(s, precisions[s.target.backend])) for s in model.segments}
