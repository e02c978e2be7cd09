"""The run of a subject's operators: once, however many checks look at it."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence

from hardpoint.errors import HardpointError
from hardpoint.testing.operators.attempt import Result
from hardpoint.testing.operators.cache import Cache, cache_of
from hardpoint.testing.operators.choose import check_known, choose
from hardpoint.testing.operators.database import Case
from hardpoint.testing.operators.pool import Pool
from hardpoint.testing.operators.tally import Tally, expected_operators
from hardpoint.testing.operators.worker import Job
from hardpoint.testing.subject import Subject

_SAVE_EVERY = 200  # results
# A worker takes seconds to start: not worth it for less than so many operators named by hand.
_WORTH_A_WORKER = 8

_DONE: weakref.WeakKeyDictionary[Subject, Tally | HardpointError] = weakref.WeakKeyDictionary()


def operators_of(subject: Subject) -> Tally:
    """What the backend makes of its share of the database; the first question does the work.

    :raises HardpointError: no worker starts, or names in options or settings mean no operator.
    """
    if subject not in _DONE:
        try:
            _DONE[subject] = _Run(subject).tally()
        except HardpointError as error:
            _DONE[subject] = error
    found = _DONE[subject]
    if isinstance(found, HardpointError):
        raise found
    return found


class _Run:
    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._expected = expected_operators(subject.settings.expected_failures)
        self._cache: Cache = cache_of(subject)
        self._results: dict[Case, Result] = {}
        self._total = 0

    def tally(self) -> Tally:
        effort, settings = self._subject.effort, self._subject.settings
        started = time.perf_counter()
        known, note = self._cache.read()
        job = Job(
            name=self._subject.name,
            precision=self._subject.precision,
            config=dict(settings.config),
            options=dict(settings.options),
            seconds=effort.seconds,
        )
        few = len(effort.operators) // _WORTH_A_WORKER + 1
        workers = min(effort.workers, few) if effort.operators else effort.workers
        pool = Pool(job, workers, known, self._note)
        pool.run(self._choose)
        self._cache.write(self._merged(known))
        notes = [f"cache: {note}"] if note else []
        if pool.remembered:
            notes.append(f"cache: {pool.remembered} of {self._total} results are an earlier run's")
        if pool.untried:
            notes.append(
                f"{pool.untried} samples were not tried: {pool.lost} before them crashed or hung"
            )
        results = tuple(self._results[case] for case in sorted(self._results))
        seconds = time.perf_counter() - started
        return Tally(results, self._expected, seconds, tuple(notes), pool.untried)

    def _choose(self, cases: Sequence[Case]) -> Sequence[Case]:
        for name in self._expected:
            check_known(name, cases)
        effort = self._subject.effort
        chosen = choose(cases, effort.samples, effort.operators)
        self._total = len(chosen)
        return chosen

    def _note(self, result: Result) -> None:
        self._results[result.case] = result
        done = len(self._results)
        self._subject.progress(done, self._total, str(result.case))
        if done % _SAVE_EVERY == 0:
            self._cache.write(self._merged(self._cache.read()[0]))

    def _merged(self, known: dict[Case, Result]) -> list[Result]:
        """Remembered results stay, also of cases that this run did not take."""
        return list({**known, **{c: r for c, r in self._results.items() if r.sample}}.values())
