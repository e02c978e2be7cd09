"""The table of one model, measured in slices, and the final among the best of all slices.

A slice is one backend in one precision, beside eager PyTorch in the same rounds: minutes, not hours.
Ratios to eager hold across slices, whatever the machine did meanwhile, if it did so to eager, too;
milliseconds do less. So what is claimed, and what ``auto`` is held against, comes from the final,
where the best of all slices, by the one and by the other, run in the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import hardpoint as hp
from hardpoint.benching.bench import run_bench
from hardpoint.benching.benchmark import Benchmark
from hardpoint.benching.front import arrange
from hardpoint.benching.request import Request
from hardpoint.benching.row import BenchRow
from hardpoint.interfaces.kinds import Target
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.results import Failure
from hardpoint.measuring.session import Session
from hardpoint.measuring.survey import Survey

# Who is nearer to the fastest of a kind than this comes into the final, but no more than so many
# by ratio, and by time.
NEAR, MOST = 1.05, 3


class Finals(Session):
    """A session whose candidates are known."""

    candidates: tuple[Candidate, ...] = ()

    def survey(self, **_: Any) -> Survey:
        """These, and nothing else."""
        return Survey(self.candidates, {}, ())


def final(
    program: hp.Program, candidates: Sequence[Candidate], *, threads: int, rounds: int,
    timeout: float, say: Callable[[int, int, str], None],
) -> Benchmark:  # fmt: skip
    """All of them in the same rounds, beside eager PyTorch."""
    limits = Limits(build_seconds=timeout, load_seconds=timeout)
    session = Finals(program, hp.default_registry(), threads=threads, limits=limits, fresh=True)
    session.candidates = tuple(candidates)
    with session:
        return run_bench(session, Request(rounds=rounds), progress=say)


def put_together(slices: Sequence[Benchmark], refused: Sequence[BenchRow] = ()) -> Benchmark:
    """One table of all slices. Eager PyTorch stands there with the slice of its median.

    :param refused: rows of slices without a table.
    """
    rows = {(r.target, r.precision, "", 0, str(r.failure)): r for r in refused}
    for each in slices:
        for row in each.rows:
            if not row.eager:
                rows[row.target, row.precision, row.variant, row.batch, str(row.failure)] = row
    eager = [r for each in slices for r in each.rows if r.eager and r.timing]
    if eager:
        middle = median(_p50(r) for r in eager)
        rows["eager", "", "", 0, ""] = min(eager, key=lambda r: abs(_p50(r) - middle))
    return replace(
        slices[0],
        rows=tuple(arrange(list(rows.values()), slices[0].objective)),
        heats=sum(each.heats for each in slices),
        noise=max(each.noise for each in slices),
        noisy=any(each.noisy for each in slices),
        seconds=sum(each.seconds for each in slices),
    )


def refused(target: str, precision: str, why: str) -> BenchRow:
    """A slice without a candidate."""
    return BenchRow(target, precision, state="failed", failure=Failure("left out", "", why))


def contenders(
    bench: Benchmark, wanted: Iterable[tuple[tuple[str, ...], float | None]],
    choices: Iterable[Mapping[str, Any]],
) -> list[Candidate]:  # fmt: skip
    """Who comes into the final: the fastest of each kind, those near it, and what auto chose.

    By ratio and by time: eager itself may have been slow in the rounds of one slice alone.

    :param wanted: (precisions, greatest error; ``None``: what is usual, whatever it is on weights
        alone); no precisions: all. :param choices: ``Choice.to_json``.
    """
    found: dict[str, Candidate] = {}
    for precisions, most in wanted:
        right = [r for r in bench.rows if speed(r) and (not precisions or r.precision in precisions)
                 and correct(r, most)]  # fmt: skip
        for fast in (speed, per_second):
            right.sort(key=fast, reverse=True)
            for row in right[:MOST]:
                if fast(row) * NEAR >= fast(right[0]):
                    found.setdefault(candidate_of(row).key, candidate_of(row))
    for choice in choices:
        won = read_candidate(choice["rows"][0]["candidate"])
        found.setdefault(won.key, won)
    return list(found.values())


def candidate_of(row: BenchRow) -> Candidate:
    """What a row of one target is of."""
    target = Target.parse(row.target)
    precision: Any = row.precision
    return Candidate((target,), {target.backend: precision}, row.variant, row.options)


def read_candidate(data: Mapping[str, Any]) -> Candidate:
    """Of ``Candidate.to_json``."""
    from hardpoint.measuring.candidate import from_json

    return from_json(data)


def speed(row: BenchRow) -> float:
    """How many times as fast as eager in the same rounds; 0: not known, or eager itself."""
    if row.eager or row.failure or row.timing is None:
        return 0.0
    return row.timing.ratio or 0.0


def per_second(row: BenchRow) -> float:
    """Calls, by the median time of one; 0: not known."""
    return 1 / row.timing.p50 if row.timing and row.timing.p50 else 0.0


def correct(row: BenchRow, most: float | None) -> bool:
    """Whether its error is at most ``most``; ``None``: within what is usual for its precision.

    Weights in int8 or int4 count there whatever their error: on random weights it says nothing
    about real ones, whose perplexity is measured apart.
    """
    if most is None:
        return row.within or row.precision in ("int8w", "int4w")
    return row.errors is not None and row.errors.max <= most


def _p50(row: BenchRow) -> float:
    return row.timing.p50 if row.timing else 0.0
