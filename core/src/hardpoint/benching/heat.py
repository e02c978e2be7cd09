"""Timing one group of runners at one batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hardpoint.benching.request import Request
from hardpoint.benching.row import BenchRow
from hardpoint.measuring.results import Errors, Failure, worse
from hardpoint.measuring.running import Race, Runner
from hardpoint.measuring.session import Session

# When the time is spent, a race ends after so many rounds.
_LEAST = 5


@dataclass(eq=False)
class Heat:
    """A group that is timed together.

    :param runners: by candidate's key, eager PyTorch under ``""``.
    :param rows: of the whole benchmark, by key and batch; filled in here.
    :param judged: why errors are a failure. :param tell: rows changed. :param say: what is done.
    :param left: gives the seconds that are left. :ivar noise: eager's own, the worst so far.
    """

    session: Session
    request: Request
    runners: dict[str, Runner]
    callers: int
    rows: dict[tuple[str, int], BenchRow]
    judged: Callable[[Errors | None], Failure | None]
    tell: Callable[[], None]
    say: Callable[[int, int, str], None]
    left: Callable[[], float]
    noise: float = 1.0


def run_heat(heat: Heat, batch: int, wanted: int | None, *, change: bool) -> None:
    """Time all at ``batch`` samples.

    :param wanted: what to ask the session for. :param change: runners have other inputs now.
    """
    if change:
        _change(heat, batch, wanted)
    racing = {k: r for k, r in heat.runners.items() if heat.rows[k, batch].failure is None}
    race = Race([r for key, r in racing.items() if key], racing.get(""), callers=heat.callers)
    rounds = heat.request.rounds
    heat.say(0, rounds, f"timing at batch {batch}")
    for done in race.run(rounds, heat.request.round_seconds):
        heat.say(done, rounds, f"timing at batch {batch}")
        for key, runner in racing.items():
            _fill(heat, key, batch, runner, race)
        heat.tell()
        if done >= _LEAST and heat.left() <= 0:
            break
    heat.noise = max(heat.noise, race.noise)
    for runner in racing.values():
        timing = race.timing(runner)
        if runner.candidate is None:
            continue
        if runner.failure is not None:
            heat.session.failed(runner.candidate, runner.failure)
        elif timing is not None:
            heat.session.measured(runner.candidate, timing)


def _change(heat: Heat, batch: int, wanted: int | None) -> None:
    """Let all go on with other inputs; who fails at that, or is wrong there, is out."""
    for number, (key, runner) in enumerate(heat.runners.items()):
        place = key, batch
        heat.say(number, len(heat.runners), f"{runner.label} at batch {batch}: first call")
        row = heat.rows[place]
        failure = runner.failure or heat.session.use(runner, wanted)
        if failure is not None:
            heat.rows[place] = row.failed(failure)
            continue
        if key:
            row = heat.rows[place] = replace(row, errors=worse(row.errors, runner.errors))
        wrong = heat.judged(runner.errors) if key else None
        if wrong is not None:
            heat.rows[place] = row.failed(replace(wrong, stage=f"first call at batch {batch}"))
    heat.tell()


def _fill(heat: Heat, key: str, batch: int, runner: Runner, race: Race) -> None:
    row, timing = heat.rows[key, batch], race.timing(runner)
    if timing is not None:
        row = row.timed(timing)
    if runner.failure is not None:
        row = row.failed(runner.failure)
    elif heat.callers > 1 and runner.callers == 1:
        row = replace(row, remark="one caller: it keeps state")
    heat.rows[key, batch] = row
