"""The measured choice: candidates tried under a budget, the best one loaded, all remembered."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hardpoint.choosing import identity
from hardpoint.choosing.cache import Cache, open_cache
from hardpoint.choosing.choice import Choice, choice_from_json
from hardpoint.choosing.memory import CRASHES, Key, Memory, worth_another_try
from hardpoint.choosing.mixes import mixes
from hardpoint.choosing.order import by_promise, in_order, variants_by_promise
from hardpoint.choosing.request import Request
from hardpoint.choosing.row import Row, State
from hardpoint.choosing.trial import Trial
from hardpoint.errors import CompileError, HardpointError, HardpointWarning
from hardpoint.events import Event
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.limits import Limits, allowed_memory
from hardpoint.measuring.results import Failure
from hardpoint.measuring.session import Session
from hardpoint.measuring.survey import Survey
from hardpoint.numerics import json_number
from hardpoint.package.load import load_package
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel

if TYPE_CHECKING:
    from hardpoint.compiler.request import Progress
    from hardpoint.registry.registry import Registry


# Whoever was timed to the end stands before those that were given up.
_PLACES: Mapping[State, int] = {"winner": 0, "timed": 1, "ready": 1, "slower": 2}


def choose(
    program: Program,
    *,
    registry: Registry,
    request: Request,
    progress: Progress | None = None,
) -> CompiledModel:
    """The best way to run ``program`` here, compiled; ``.choice`` of it says why.

    :raises CompileError: nothing that was tried runs it within the error asked for.
    """
    started, threads = time.monotonic(), torch.get_num_threads()
    program_and_machine = (identity.of_program(program), identity.of_machine(threads))
    chooser = _Chooser(program, registry, request, progress, threads, started, program_and_machine)
    cache = open_cache()
    if cache is None:
        return chooser.measure(Memory(None), None)
    try:
        return _with_cache(chooser, cache, request, progress)
    finally:
        cache.close()


def _with_cache(
    chooser: _Chooser, cache: Cache, request: Request, progress: Progress | None
) -> CompiledModel:
    """What is known; else measured, while no other process measures."""
    memory = Memory(cache)
    known = chooser.recall(memory)
    if known is not None:
        return known

    def waiting() -> None:
        if progress is not None:
            progress(0, 1, "another process measures; waiting for it")

    with cache.lock(request.budget.seconds, waiting) as alone:
        known = chooser.recall(memory)  # the other one may have chosen the same
        if known is not None:
            return known
        if not alone:
            warnings.warn(
                f"another process still measures after {request.budget.seconds:g} s: figures of "
                "both are disturbed",
                HardpointWarning, stacklevel=2,
            )  # fmt: skip
        chooser.started = time.monotonic()
        return chooser.measure(memory, cache.work() if alone else None)


class _Chooser:
    """One choice.

    :ivar started: when the budget began.
    """

    def __init__(
        self,
        program: Program,
        registry: Registry,
        request: Request,
        progress: Progress | None,
        threads: int,
        started: float,
        program_and_machine: tuple[str, str],
    ) -> None:
        self._program, self._registry, self._request = program, registry, request
        self._progress, self._threads, self.started = progress, threads, started
        self._identity = program_and_machine
        # Once: what is installed may change while this measures, and then these figures are old.
        self._environment = identity.of_everything(registry)

    def recall(self, memory: Memory) -> CompiledModel | None:
        """The same choice from before, where it still holds."""
        found = memory.choice(self._key())
        if found is None:
            return None
        data, digest = found
        try:
            choice = replace(choice_from_json(data), remembered=True)
        except (KeyError, TypeError, ValueError):  # another version wrote it: choose again
            return None
        if choice.not_tried and choice.budget < self._request.budget.seconds:
            return None
        if any(self._may_pass_now(row, data.get("limits")) for row in choice.rows):
            return None
        path = memory.get(digest)
        if path is None:
            return None
        try:
            # Its whole content was just compared with its hash.
            return self._load(path, choice, "quick")
        except HardpointError as error:
            warnings.warn(
                f"what was chosen before cannot be loaded, and is measured again: {error.what}"
                + (f": {error.cause}" if error.cause else ""),
                HardpointWarning, stacklevel=2,
            )  # fmt: skip
            return None

    def _may_pass_now(self, row: Row, then: object) -> bool:
        """Whether a candidate failed for a limit that is wider now."""
        if row.failure is None or not isinstance(then, dict):
            return False
        budget = self._request.budget
        now = {
            "candidate_seconds": budget.candidate_seconds, "memory": allowed_memory(budget.memory),
        }  # fmt: skip
        return worth_another_try(row.failure, then, now, CRASHES)

    def measure(self, memory: Memory, folder: Path | None) -> CompiledModel:
        """Try what there is, and load the best.

        :param folder: to work in; ``None``: a temporary one.
        """
        request, budget = self._request, self._request.budget
        limits = Limits(
            build_seconds=budget.candidate_seconds,
            load_seconds=min(Limits().load_seconds, budget.candidate_seconds),
            memory_bytes=budget.memory,
        )
        with Session(
            self._program, self._registry, limits=limits, threads=self._threads, folder=folder,
            objective=request.objective,
        ) as session:  # fmt: skip
            self._say(0, 1, "asking the backends what they support")
            trial = Trial(session, request, memory, self._identity, self._left, self._progress)
            found = session.survey(
                precisions=request.precisions, options=request.options, cover=trial.cover
            )
            mixed = self._try(session, found, trial)
            trial.decide()
            left_out = [*found.left_out]
            mixed_in = {target for candidate in mixed for target in candidate.targets}
            left_out += [(str(t), why) for t, why in found.partial.items() if t not in mixed_in]
            choice = self._choice(trial, left_out)
            digest = trial.digests.get(choice.winner.key)
            session.stop()  # the others' models must not stand in the way of the winner's
            model = self._load(trial.packages[choice.winner.key], choice, "full")
        if digest is not None:
            kept = {**choice.to_json(), "limits": trial.limits}
            memory.keep_choice(self._key(), kept, digest)
        return model

    def _try(self, session: Session, found: Survey, trial: Trial) -> list[Candidate]:
        """Try defaults, then variants of the best first, then mixes; gives the mixes."""
        request = self._request
        plain = [c for c in found.candidates if not c.variant]
        precisions = in_order(self._program, request)
        best = partial(_ranked, trial.rows.values(), request)
        trial.run(by_promise(plain, precisions, best), len(plain))
        varied = [c for c in found.candidates if c.variant]
        trial.run(variants_by_promise(varied, best()), len(varied))
        whole = next((row.candidate for row in best()), None)
        covered = {target: session.covered.get(target, 0) for target in found.partial}
        mixed = mixes(
            self._registry, covered, whole, request.objective, precisions, request.options
        )
        trial.run(mixed, len(mixed))
        return mixed

    def _choice(self, trial: Trial, left_out: list[tuple[str, Failure]]) -> Choice:
        request = self._request
        good = _ranked(trial.rows.values(), request)
        if not good:
            raise _nothing(self._program, [*trial.rows.values()], left_out, request)
        first = replace(good[0], state="winner")
        bad = [row for row in trial.rows.values() if row not in good]
        contest = trial.contest
        race = None if contest is None else contest.last
        return Choice(
            objective=request.objective,
            max_error={str(p): limit for p, limit in request.max_error.items()},
            rows=(first, *good[1:], *bad),
            left_out=tuple(left_out),
            eager=race.timing(race.baseline) if race is not None and race.baseline else None,
            noise=1.0 if race is None else race.noise,
            noisy=race is not None and race.noisy,
            seconds=time.monotonic() - self.started,
            budget=request.budget.seconds,
            threads=self._threads,
            held_out=bool(self._program.check_inputs),
        )

    def _load(self, path: Path, choice: Choice, verify: str) -> CompiledModel:
        model = load_package(path, registry=self._registry, verify=verify)  # type: ignore[arg-type]
        allowed = json_number(self._request.limit(choice.winner))
        verification: Mapping[str, object] = {**model.verification, "allowed": allowed}
        # A package of the cache may have been made for the same program by another name.
        model.facts = model.facts._replace(
            name=self._program.name, verification=verification, choice=choice
        )
        self._registry.emit(
            Event("chosen", data={"program": self._program.name, "winner": choice.winner.label,
                                  "objective": choice.objective, "remembered": choice.remembered,
                                  "seconds": time.monotonic() - self.started})
        )  # fmt: skip
        return model

    def _key(self) -> Key:
        request = json.dumps(self._request.to_json(), sort_keys=True)
        return (*self._identity, self._environment, request)

    def _left(self) -> float:
        return self._request.budget.seconds - (time.monotonic() - self.started)

    def _say(self, done: int, total: int, what: str) -> None:
        if self._progress is not None:
            self._progress(done, total, what)


def _ranked(rows: Iterable[Row], request: Request) -> list[Row]:
    """Those that run, the best first."""
    running = (row for row in rows if row.state in _PLACES)
    return sorted(running, key=lambda row: (_PLACES[row.state], _cost(row, request)))


def _cost(row: Row, request: Request) -> float:
    if request.objective == "size":
        return float(row.bytes or 0)
    if request.objective == "memory":
        return float(row.memory_bytes or 0)
    if row.timing is None:
        return 0.0
    return row.timing.p50 if request.objective == "latency" else -row.timing.throughput


def _nothing(
    program: Program,
    rows: list[Row],
    left_out: list[tuple[str, Failure]],
    request: Request,
) -> CompileError:
    """Nothing runs it: each reason."""
    said = [f"{row.label}: {row.failure or row.state}" for row in rows]
    said += [f"{name}: {failure.reason}" for name, failure in left_out]
    return CompileError(
        f"no target was found that runs {program.name} within the error asked for",
        cause="; ".join(said) or "no backend is installed",
        remedy="allow more with max_error= or budget=, or name targets: hp.plan(program, "
        "targets=[...])",
    )
