"""Timing that wastes no rounds: what is clearly slower is given up early.

Rounds are compared in pairs, each with the one beside it, so that what the machine does meanwhile
counts for both. A candidate is given up where it was slower in every pair, and in the middle by a
margin that shrinks as rounds are added: successive elimination as in E. Even-Dar, S. Mannor and
Y. Mansour, Journal of Machine Learning Research 7 (2006), with margins in place of their bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hardpoint.measuring.figures import median
from hardpoint.measuring.results import Round
from hardpoint.measuring.running import ROUNDS, Race, Runner

SCREEN_ROUNDS = 3
SCREEN_MARGIN = 1.5
# After so many rounds of the final, given up by this margin.
MARGINS = {5: 1.2, 10: 1.1}
# Nearer than this after the final: as many rounds again decide between them.
NEAR = 1.03
# Each is a process with a model in memory.
MOST = 8

# Told the figures of these runners in a race, whenever there are new ones.
Note = Callable[[Race, Iterable[Runner]], None]


class Contest:
    """Who is fastest.

    :param baseline: eager PyTorch. :param callers: at the same time; several: by throughput.
    :param left: gives the seconds that are left. :param note: told of new figures.
    :param room: bytes that the contenders may take together; ``None``: as many as there are.
    :ivar contenders: those that may still win. :ivar last: the race that was run last.
    """

    def __init__(
        self,
        baseline: Runner | None,
        callers: int,
        left: Callable[[], float],
        note: Note,
        room: float | None = None,
    ) -> None:
        self.baseline, self._callers, self._left, self._note = baseline, callers, left, note
        self._room = room
        self.contenders: list[Runner] = []
        self.last: Race | None = None

    def enter(self, runner: Runner) -> None:
        """Time a newcomer beside the best so far; whoever is clearly slower goes."""
        best = self._ranked()[0] if self.contenders else None
        racing = [runner] if best is None else [best, runner]
        race = self._race(racing)
        for _ in race.run(SCREEN_ROUNDS):
            pass
        self._note(race, racing)
        self.contenders = [r for r in (*self.contenders, runner) if r.failure is None]
        if best is not None and len({best, runner} & set(self.contenders)) == 2:
            for one, other in ((runner, best), (best, runner)):
                if self._slower(one, other, SCREEN_MARGIN):
                    self._give_up(one)
        ranked = self._ranked()
        while len(ranked) > 1 and (len(ranked) > MOST or self._crowded()):
            self._give_up(ranked.pop())

    def decide(self) -> list[Runner]:
        """The final among those that are left; the fastest first."""
        race = self._race(self.contenders)
        for done in race.run(ROUNDS):
            self._note(race, race.runners)
            self._drop(race, MARGINS.get(done))
            if self._left() <= 0 and done >= min(MARGINS):
                break
        ranked = [r for r in self._ranked() if r in race.runners]
        near = [r for r in ranked if self._cost(r) <= NEAR * self._cost(ranked[0])]
        if len(near) > 1 and self._left() > 0:
            for one in set(race.runners) - set(near):
                race.drop(one)
            for _ in race.run(ROUNDS):
                if self._left() <= 0:
                    break
            self._note(race, race.runners)
        # Who was dropped has fewer rounds, perhaps of a quieter minute: medians do not compare.
        return sorted(self._ranked(), key=lambda r: r not in race.runners)

    def _race(self, runners: Iterable[Runner]) -> Race:
        """A race in which everybody begins at the start."""
        race = Race(list(runners), self.baseline, callers=self._callers)
        for runner in (*race.runners, *([self.baseline] if self.baseline else ())):
            runner.rounds = []
        self.last = race
        return race

    def _drop(self, race: Race, margin: float | None) -> None:
        """Take out of the final what is slower than the best by ``margin``."""
        ranked = [r for r in self._ranked() if r in race.runners]
        if margin is None or not ranked:
            return
        for one in ranked[1:]:
            if self._slower(one, ranked[0], margin):
                race.drop(one)

    def _crowded(self) -> bool:
        """Whether the models of all contenders take more memory than there is for them."""
        taken = sum(max(0, r.begun.memory_bytes - r.begun.base_bytes) for r in self.contenders)
        return self._room is not None and taken > self._room

    def _give_up(self, runner: Runner) -> None:
        self.contenders.remove(runner)
        runner.stop()

    def _ranked(self) -> list[Runner]:
        """Contenders that did not fail, by the median of their rounds."""
        return sorted((r for r in self.contenders if r.failure is None), key=self._cost)

    def _cost(self, runner: Runner) -> float:
        return median([self._of(r) for r in runner.rounds])

    def _slower(self, one: Runner, other: Runner, margin: float) -> bool:
        """Slower in every pair of rounds, and by ``margin`` in the middle."""
        pairs = zip(one.rounds, other.rounds, strict=False)
        ratios = [self._of(mine) / self._of(theirs) for mine, theirs in pairs]
        return bool(ratios) and min(ratios) > 1 and median(ratios) > margin

    def _of(self, measured: Round) -> float:
        """Seconds of a call; with several callers, seconds between two results."""
        if self._callers > 1:
            return measured.seconds / measured.count
        return median(measured.calls)
