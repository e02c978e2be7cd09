"""Trying candidates one by one: built, compared with eager, started, timed; and what is known of
them from before used in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from hardpoint.choosing.contest import Contest
from hardpoint.choosing.database import Known
from hardpoint.choosing.identity import of_backends
from hardpoint.choosing.memory import Key, Memory, worth_another_try
from hardpoint.choosing.request import Request
from hardpoint.choosing.row import Row, State, row_from_json
from hardpoint.compiler.request import Progress
from hardpoint.interfaces.kinds import Target
from hardpoint.measuring import processors
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.results import Built, Failure
from hardpoint.measuring.running import ROUNDS, Race, Runner
from hardpoint.measuring.session import Session, judge

# Of the budget, so much is kept for timing what was built.
_BUILD_SHARE = 0.85
# Of the memory that one child may take, the contenders that stand still take this share together.
_ROOM = 0.5


class Trial:
    """All that is tried for one choice.

    :param identity: (program, machine) hashes. :param left: gives the seconds that are left.
    :ivar rows: by candidate's key, in the order of trying. :ivar packages: of those that run.
    :ivar limits: that candidates have here; a failure may be none with others.
    """

    def __init__(
        self,
        session: Session,
        request: Request,
        memory: Memory,
        identity: tuple[str, str],
        left: Callable[[], float],
        progress: Progress | None,
    ) -> None:
        self._session, self._request, self._memory = session, request, memory
        self._identity, self._left, self._progress = identity, left, progress
        self.rows: dict[str, Row] = {}
        self.packages: dict[str, Path] = {}
        self.digests: dict[str, str] = {}
        self.contest: Contest | None = None
        self._told: set[str] = set()
        self._environments: dict[tuple[str, ...], str] = {}
        self.limits = {
            "candidate_seconds": request.budget.candidate_seconds, "memory": session.memory,
        }  # fmt: skip

    def cover(self, target: Target) -> Failure | None:
        """Why a target does not run the whole program, or ``None``: from before, or asked now."""
        key: Key = (*self._identity, self._environment([target.backend]), f"cover {target}")
        found = self._memory.candidate(key)
        if found is not None and isinstance(found.row.get("supported"), int):
            self._session.covered[target] = found.row["supported"]
            reason = str(found.row.get("reason", ""))
            return Failure("not whole", "", reason) if reason else None
        failure = self._session.cover(target)
        if failure is None or failure.kind == "not whole":  # anything else may pass
            reason = "" if failure is None else failure.reason
            answer = {"supported": self._session.covered[target], "reason": reason}
            self._memory.keep(key, Known(answer, None, 1, {}))
        return failure

    def run(self, candidates: Iterable[Candidate], total: int) -> None:
        """Try these, after those before; the contest's final is not run yet.

        :param candidates: so many; asked for one by one, as the next may depend on the last.
        """
        for i, candidate in enumerate(candidates):
            self._say(i, total, candidate.label)
            self.rows[candidate.key] = row = self._try(candidate, i, total)
            self._tell_failure(row)

    def decide(self) -> None:
        """The final of what is timed; rows get their last state."""
        if self.contest is None or not self.contest.contenders:
            return
        self._say(1, 1, "the final")
        contest, contenders = self.contest, list(self.contest.contenders)
        ranked = contest.decide()
        assert contest.last is not None
        for runner in contenders:
            whole = len(runner.rounds) >= ROUNDS or runner in contest.last.runners
            if runner.failure is None and whole:
                self._put(runner, "winner" if runner is ranked[0] else "timed")

    def _try(self, candidate: Candidate, done: int, total: int) -> Row:
        key = self._key(candidate)
        known = self._known(key, candidate)
        if known is not None and known.failure is not None:
            return known
        timed = self._request.objective in ("latency", "throughput")
        if known is not None and known.memory_bytes is not None and not timed:
            return replace(known, state="ready", timing=None)  # nothing is left to find out
        if known is not None:
            built = self._as_built(candidate, known)
        elif self._seconds_to_build() <= 0:
            return Row(candidate, "not tried")
        else:
            made = self._build(candidate, key, done, total)
            if isinstance(made, Row):
                return made
            built = made
        row = replace(known or Row(candidate, "ready"), state="ready", timing=None).built(built)
        return self._start(row, built, key)

    def _build(self, candidate: Candidate, key: Key, done: int, total: int) -> Built | Row:
        limit, left = self._request.budget.candidate_seconds, self._seconds_to_build()
        built = self._session.build(
            candidate,
            seconds=min(limit, left),
            on_stage=lambda stage: self._say(done, total, f"{candidate.label}: {stage}"),
        )
        row = Row(candidate, "ready")
        if isinstance(built, Failure):
            if built.kind == "hung" and left < limit:
                return replace(row, state="not tried")  # the budget ended it, not the candidate
            row = row.failed(built)
            if built.stage != "saving":  # a full disk says nothing of the candidate
                self._keep(key, row, None)
            return row
        wrong = judge(built.errors, self._request.limit(candidate))
        if wrong is not None:
            self._keep(key, row.built(built), None)
            built.package.unlink()
            return row.built(built).failed(wrong)
        return built

    def _start(self, row: Row, built: Built, key: Key) -> Row:
        """Run it in a process of its own; time it where the objective asks for it."""
        candidate = row.candidate
        runner = self._session.start(built)
        if isinstance(runner, Failure):
            row = row.failed(runner)
            self._keep(key, row, None)
            return row
        row = row.begun(runner.begun)
        wrong = judge(runner.errors, self._request.limit(candidate))
        if wrong is not None:
            runner.stop()
            self._keep(key, row, None)
            return row.failed(replace(wrong, stage="first call in a new process"))
        self._keep_package(candidate, built, key, row)
        self.rows[candidate.key] = row
        if self._request.objective in ("size", "memory"):
            runner.stop()
            return row
        if self.contest is None:
            self.contest = self._contest()
        self.contest.enter(runner)
        return self.rows[candidate.key]

    def _contest(self) -> Contest:
        baseline = self._session.start(None)
        callers = processors.callers(self._request.objective, self._session.threads)
        eager = baseline if isinstance(baseline, Runner) else None
        allowed = self._session.memory
        room = None if allowed is None else _ROOM * allowed
        return Contest(eager, callers, self._left, self._note, room)

    def _note(self, race: Race, runners: Iterable[Runner]) -> None:
        """Figures of a race: into the rows, and to whoever observes."""
        for runner in runners:
            assert runner.candidate is not None
            row = self.rows[runner.candidate.key]
            if runner.failure is not None:
                if row.failure is None:
                    self.rows[runner.candidate.key] = failed = row.failed(runner.failure)
                    self._keep(self._key(runner.candidate), failed, None)
                    self._tell_failure(failed)
            elif (timing := race.timing(runner)) is not None:
                self.rows[runner.candidate.key] = replace(row, timing=timing, state="slower")

    def _tell_failure(self, row: Row) -> None:
        """Tell observers, once."""
        if row.failure is not None and row.candidate.key not in self._told:
            self._told.add(row.candidate.key)
            self._session.failed(row.candidate, row.failure)

    def _put(self, runner: Runner, state: State) -> None:
        assert runner.candidate is not None
        key = runner.candidate.key
        self.rows[key] = replace(self.rows[key], state=state)
        timing = self.rows[key].timing
        if timing is not None:
            self._session.measured(runner.candidate, timing)

    def _known(self, key: Key, candidate: Candidate) -> Row | None:
        """What is known from before and still counts."""
        found = self._memory.candidate(key)
        if found is None:
            return None
        try:
            row = replace(row_from_json(found.row), candidate=candidate)
        except (KeyError, TypeError, ValueError):  # another version wrote it: measure again
            return None
        if row.failure is not None:
            again = worth_another_try(row.failure, found.limits, self.limits, found.attempts)
            return None if again else row
        wrong = judge(row.errors, self._request.limit(candidate))
        if wrong is not None:
            return row.failed(wrong)
        package = self._memory.get(found.package) if found.package else None
        if package is None or found.package is None:
            return None
        self.packages[candidate.key], self.digests[candidate.key] = package, found.package
        return row

    def _keep(self, key: Key, row: Row, package: str | None) -> None:
        self._memory.keep_row(key, row, package, self.limits)

    def _keep_package(self, candidate: Candidate, built: Built, key: Key, row: Row) -> None:
        """Remember a row and its package."""
        if candidate.key in self.packages:
            return
        self.packages[candidate.key] = built.package
        kept = self._memory.put(built.package)
        if kept is not None:
            self.digests[candidate.key], self.packages[candidate.key] = kept
            self._keep(key, row, kept[0])

    def _as_built(self, candidate: Candidate, row: Row) -> Built:
        return Built(
            candidate=candidate, package=self.packages[candidate.key], bytes=row.bytes or 0,
            compile_seconds=row.compile_seconds or 0.0, verify_seconds=0.0, peak_bytes=0,
            errors=row.errors, segments=row.segments or 1,
        )  # fmt: skip

    def _seconds_to_build(self) -> float:
        return self._left() - (1 - _BUILD_SHARE) * self._request.budget.seconds

    def _key(self, candidate: Candidate) -> Key:
        backends = [t.backend for t in candidate.targets]
        environment = self._environment(backends, candidate.partitioner)
        # Partitioners cut by the objective.
        aim = f" for {self._request.objective}" if candidate.partitioner else ""
        return (*self._identity, environment, candidate.key + aim)

    def _environment(self, backends: Sequence[str], partitioner: str = "") -> str:
        """See :func:`of_backends`; asked once a choice."""
        names = (*backends, partitioner)
        if names not in self._environments:
            found = of_backends(self._session.registry, backends, partitioner)
            self._environments[names] = found
        return self._environments[names]

    def _say(self, done: int, total: int, what: str) -> None:
        if self._progress is not None:
            self._progress(done, total, what)
