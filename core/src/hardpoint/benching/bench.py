"""Every candidate of a program built, compared with eager PyTorch, and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.benching.benchmark import Benchmark
from hardpoint.benching.front import arrange
from hardpoint.benching.heat import Heat, run_heat
from hardpoint.benching.request import Request
from hardpoint.benching.row import BenchRow
from hardpoint.errors import PlanError
from hardpoint.measuring import processors
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.figures import NOISY
from hardpoint.measuring.results import Failure
from hardpoint.measuring.running import Runner
from hardpoint.measuring.session import Session, judge
from hardpoint.measuring.survey import Survey
from hardpoint.measuring.workload import measured_on, samples

if TYPE_CHECKING:
    from hardpoint.program.program import Program

# Told all rows, in the order of the table, whenever one changed.
Watch = Callable[[Sequence[BenchRow]], None]
# (done, total, what is being done now), as hardpoint.compile's.
Progress = Callable[[int, int, str], None]

# Of the memory that a child may take, all models of a heat together may take this share.
_ROOM = 0.6
# Of the budget, so much is kept for timing.
_BUILD_SHARE = 0.75


def run_bench(
    session: Session,
    request: Request,
    *,
    watch: Watch | None = None,
    progress: Progress | None = None,
) -> Benchmark:
    """Bench the session's program.

    :raises InputError: it cannot be run at one of the batch sizes.
    :raises PlanError: nothing runs it as a whole, with each reason.
    :raises ConfigError: no backend has one of the variants that are wanted.
    """
    return _Bench(session, request, watch, progress).run()


class _Bench:
    def __init__(
        self,
        session: Session,
        request: Request,
        watch: Watch | None,
        progress: Progress | None,
    ) -> None:
        self._session, self._request = session, request
        self._watch, self._progress = watch, progress
        self._begun = time.monotonic()
        self._rows: dict[tuple[str, int], BenchRow] = {}
        self._batches = _batches(session.program, request.batches)
        self._callers = processors.callers(request.objective, session.threads)
        self._least = min(self._batches)
        self._heats: list[Heat] = []
        self._packages: dict[str, Path] = {}  # of those that wait to be timed
        self._baseline: Runner | None = None

    def run(self) -> Benchmark:
        """Find the candidates, build and time them; see :func:`run_bench`."""
        self._say(0, 0, "running eager PyTorch")
        for wanted in self._batches.values():
            self._session.inputs(wanted)
        self._say(0, 0, "asking the backends what they support")
        request = self._request
        found = self._session.survey(
            targets=request.targets, precisions=request.precisions, options=request.options
        )
        request.check_variants(found.candidates)
        candidates = [c for c in found.candidates if request.wants(c)]
        for name, failure in (*found.left_out, *((str(t), f) for t, f in found.partial.items())):
            self._rows[name, 0] = BenchRow(name, state="failed", failure=failure)
        if not candidates:
            raise _nothing(self._session.program, found, request)
        for batch in self._batches:
            self._rows["", batch] = BenchRow.of(None, batch)
            for candidate in candidates:
                row = BenchRow.of(candidate, batch, request.limit(candidate))
                self._rows[candidate.key, batch] = row
        self._tell()
        self._start_baseline()
        self._try_all(candidates)
        noise = max((h.noise for h in self._heats), default=1.0)
        return Benchmark(
            program=self._session.program.name,
            objective=request.objective,
            rows=tuple(arrange(list(self._rows.values()), request.objective)),
            max_error=request.max_error,
            machine=self._session.machine(),
            rounds=request.rounds,
            round_seconds=request.round_seconds,
            callers=self._callers,
            heats=len(self._heats),
            noise=noise,
            noisy=noise > NOISY,
            seconds=time.monotonic() - self._begun,
            held_out=bool(self._session.program.check_inputs),
        )

    def _start_baseline(self) -> None:
        started = self._session.start(None, self._first)
        for batch in self._batches:
            row = self._rows["", batch]
            if isinstance(started, Failure):
                self._rows["", batch] = row.failed(started)
            else:
                self._baseline = started
                # It is compared with itself; its memory at other batches is known when it ran them.
                begun = row.begun(started.begun) if batch == self._least else row
                self._rows["", batch] = replace(begun, state="ready", errors=None)
        self._tell()

    def _try_all(self, candidates: Sequence[Candidate]) -> None:
        """Build one after another; time as many together as the memory holds."""
        waiting: dict[str, Runner] = {}
        room = None if self._session.memory is None else _ROOM * self._session.memory
        for done, candidate in enumerate(candidates):
            runner = self._prepare(candidate, done, len(candidates))
            if runner is None:
                continue
            taken = sum(r.begun.memory_bytes for r in (*waiting.values(), runner))
            if room is not None and waiting and taken > room:
                self._race(waiting)
                waiting = {}
            waiting[candidate.key] = runner
        if waiting or not self._heats:
            self._race(waiting)

    def _prepare(self, candidate: Candidate, done: int, total: int) -> Runner | None:
        """Build and start one; ``None``, and its rows say why, where that fails."""
        limit = self._session.limits.build_seconds
        left = self._left() - (1 - _BUILD_SHARE) * (self._request.budget or 0.0)
        if left <= 0:
            return self._end(candidate, state="not tried", remark=self._spent)
        self._put(candidate, state="building")
        self._tell()
        built = self._session.build(
            candidate,
            seconds=min(limit, left),
            on_stage=lambda stage: self._say(done, total, f"{candidate.label}: {stage}"),
        )
        if isinstance(built, Failure):
            if built.kind == "hung" and left < limit:  # the budget ended it
                return self._end(candidate, state="not tried", remark=self._spent)
            return self._end(candidate, failure=built, state="failed")
        self._rows |= {(candidate.key, b): self._rows[candidate.key, b].built(built)
                       for b in self._batches}  # fmt: skip
        wrong = self._judged(built.errors)
        if wrong is not None:
            built.package.unlink()
            return self._end(candidate, failure=wrong, state="failed")
        runner = self._session.start(built, self._first)
        if isinstance(runner, Failure):
            built.package.unlink()
            return self._end(candidate, failure=runner, state="failed")
        self._packages[candidate.key] = built.package
        place = candidate.key, self._least
        self._rows[place] = self._rows[place].begun(runner.begun)
        self._tell()
        wrong = self._judged(runner.errors)
        if wrong is not None:
            runner.stop()
            self._packages.pop(candidate.key).unlink()
            wrong = replace(wrong, stage="first call in a new process")
            return self._end(candidate, failure=wrong, state="failed")
        return runner

    def _race(self, waiting: dict[str, Runner]) -> None:
        """Time these together, at each batch size."""
        heat = Heat(
            session=self._session,
            request=self._request,
            runners={"": self._baseline, **waiting} if self._baseline else dict(waiting),
            callers=self._callers,
            rows=self._rows,
            judged=self._judged,
            tell=self._tell,
            say=self._say,
            left=self._left,
        )
        again = bool(self._heats)
        for number, (batch, wanted) in enumerate(self._batches.items()):
            run_heat(heat, batch, wanted, change=again or number > 0)
        for key, runner in waiting.items():
            runner.stop()
            self._packages.pop(key).unlink()  # all together they would fill a disk
        self._heats.append(heat)

    def _judged(self, errors: Any) -> Failure | None:
        """What is never right, and what is beyond the error asked for."""
        asked = self._request.max_error
        return judge(errors, _FINITE if asked is None else asked)

    def _end(self, candidate: Candidate, **changes: Any) -> Runner | None:
        """``None``: there is no runner. One row is enough for what was not run at any batch."""
        first, *others = self._batches
        self._rows[candidate.key, first] = replace(
            self._rows[candidate.key, first], batch=0, **changes
        )
        for batch in others:
            del self._rows[candidate.key, batch]
        if "failure" in changes:
            self._session.failed(candidate, changes["failure"])
        self._tell()
        return None

    def _put(self, candidate: Candidate, **changes: Any) -> None:
        for batch in self._batches:
            key = candidate.key, batch
            self._rows[key] = replace(self._rows[key], **changes)

    @property
    def _first(self) -> int | None:
        return next(iter(self._batches.values()))

    @property
    def _spent(self) -> str:
        return f"not tried: the budget of {self._request.budget:g} s was spent"

    def _left(self) -> float:
        budget = self._request.budget
        return float("inf") if budget is None else budget - (time.monotonic() - self._begun)

    def _tell(self) -> None:
        if self._watch is not None:
            self._watch(arrange(list(self._rows.values()), self._request.objective))

    def _say(self, done: int, total: int, what: str) -> None:
        if self._progress is not None:
            self._progress(done, total, what)


# Errors above are infinite: NaN where there is none, integers that differ.
_FINITE = 1.7976931348623157e308


def _batches(program: Program, asked: Sequence[int]) -> dict[int, int | None]:
    """Batch size -> what to ask the session for; ``None``: the examples as they are.

    The least first: a process's greatest memory so far is that of the batch that it runs.
    """
    own = samples(measured_on(program))
    return {b: None if b == own else b for b in sorted(set(asked))} or {own: None}


def _nothing(program: Program, found: Survey, request: Request) -> PlanError:
    reasons = [(str(t), f) for t, f in found.partial.items()] + list(found.left_out)
    said = [f"{name}: {failure.reason}" for name, failure in reasons]
    if found.candidates:
        said.append(f"none of the {len(found.candidates)} candidates is of a wanted variant")
    return PlanError(
        f"nothing runs {program.name} as a whole, so there is nothing to bench",
        cause="; ".join(said) or "no backend is available",
        remedy="name other --targets or --precisions; hardpoint plan shows who runs which part",
    )
