"""A process that runs a package, and rounds of many such processes, in turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.child import Child, LostError
from hardpoint.measuring.figures import NOISY, spread, timing
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.results import Errors, Failure, Round, Start, Timing, errors_from_json

ROUNDS = 15
ROUND_SECONDS = 0.06
WARMUPS = 3
# A call may take so many times what the first one did before it counts as hung.
_SLOWER = 3.0


class Runner:
    """A started process with a model that has been called once. It is stopped between rounds.

    :ivar candidate: what it runs; ``None``: eager PyTorch.
    :ivar begun: how it started. :ivar errors: of its last first call, on its present inputs.
    :ivar facts: segment -> what its runtime says it does, read in this process.
    :ivar rounds: on its present inputs. :ivar failure: why there are no more.
    """

    def __init__(
        self, child: Child, candidate: Candidate | None, samples: int, limits: Limits
    ) -> None:
        self.candidate, self.samples = candidate, samples
        self.rounds: list[Round] = []
        self.failure: Failure | None = None
        self.callers = 1
        self._child, self._limits = child, limits
        child.wait(limits.start_seconds)
        answer = child.wait(limits.load_seconds)
        child.pause()
        self._first_seconds = answer["first_seconds"]
        self.errors: Errors | None = errors_from_json(answer["errors"])
        self.facts: dict[str, Any] = answer["facts"]
        self.begun = Start(
            cold_seconds=answer["cold_seconds"],
            import_seconds=answer["import_seconds"],
            load_seconds=answer["load_seconds"],
            first_seconds=answer["first_seconds"],
            errors=self.errors,
            memory_bytes=answer["memory_bytes"],
            base_bytes=answer["base_bytes"],
        )

    @property
    def label(self) -> str:
        """The candidate's, or ``"eager"``."""
        return "eager" if self.candidate is None else self.candidate.label

    def use(self, inputs: Path, samples: int) -> Failure | None:
        """Go on with other inputs; forget the rounds on the last ones."""
        self.rounds, self.samples = [], samples
        answer = self._ask({"do": "use", "inputs": str(inputs)}, self._limits.load_seconds)
        if answer is not None:
            self.errors = errors_from_json(answer["errors"])
            self._first_seconds = answer["first_seconds"]
        return self.failure

    def round(
        self, seconds: float = ROUND_SECONDS, *, callers: int = 1, warmups: int | None = None
    ) -> Round | Failure:
        """Time one round. A failure is for good, and the process is gone.

        :param callers: threads that call at the same time; one, where the model keeps state.
        :param warmups: calls before, not timed; ``None``: three in the first round, then one.
        """
        if self.failure is not None:
            return self.failure
        if warmups is None:
            warmups = 1 if self.rounds else WARMUPS
        command = {"do": "round", "seconds": seconds, "callers": callers, "warmups": warmups}
        # A call of a large model may take minutes, and callers, who call once before, wait for
        # each other.
        calls = (warmups + 2 * callers) * _SLOWER * self._first_seconds
        answer = self._ask(command, seconds + self._limits.round_seconds + calls)
        if answer is None:
            assert self.failure is not None
            return self.failure
        self.callers = answer["callers"]
        made = Round(answer["calls"], answer["seconds"], answer["count"], answer["peak_bytes"])
        self.rounds.append(made)
        return made

    def stop(self) -> None:
        """End the process. Its rounds stay."""
        self._child.stop()

    def _ask(self, command: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        self._child.resume()
        try:
            answer = self._child.ask(command, seconds)
        except LostError as lost:
            self.failure = lost.failure
            return None
        self._child.pause()
        return answer


class Race:
    """Rounds of several runners in turn, every second time in reverse order.

    One runs at a time, and the others are stopped; so whatever the machine does meanwhile, all of
    them get their share of it.

    :param baseline: eager PyTorch's runner, for ratios and for the noise; it races too.
    """

    def __init__(
        self, runners: Sequence[Runner], baseline: Runner | None = None, *, callers: int = 1
    ) -> None:
        self.runners = list(runners)
        self.baseline = baseline
        self._callers = callers
        self._done = 0

    def run(self, rounds: int = ROUNDS, seconds: float = ROUND_SECONDS) -> Iterator[int]:
        """Run rounds; gives after each how many there were, so that figures can be shown.

        A runner that fails takes no further part; so does one that is :meth:`dropped <drop>`.
        """
        for _ in range(rounds):
            racing = [r for r in (self.baseline, *self.runners) if r is not None]
            for runner in racing if self._done % 2 == 0 else reversed(racing):
                if runner.failure is None:
                    runner.round(seconds, callers=self._callers)
            self._done += 1
            yield self._done

    def drop(self, runner: Runner) -> None:
        """Take one out and end its process; its rounds so far stay."""
        self.runners.remove(runner)
        runner.stop()

    def timing(self, runner: Runner) -> Timing | None:
        """The figures of a runner so far; ``None`` before its first round."""
        if not runner.rounds:
            return None
        eager = self.baseline.rounds if self.baseline is not None else None
        return timing(
            runner.rounds, eager or None, samples=runner.samples, callers=runner.callers,
            by_rate=self._callers > 1,
        )  # fmt: skip

    @property
    def noisy(self) -> bool:
        """Eager PyTorch's own rounds differ so much that no conclusion holds."""
        return self.noise > NOISY

    @property
    def noise(self) -> float:
        """The 90th percentile of eager's round medians ÷ the least of them; 1 without rounds."""
        if self.baseline is None or not self.baseline.rounds:
            return 1.0
        return spread(self.baseline.rounds)
