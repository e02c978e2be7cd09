"""Checks of ranks that are silent, stop or die, and of what groups leave behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hardpoint.testing.check import check, expect
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.launcher import Launcher, Ranked
from hardpoint.testing.transport.messages import need
from hardpoint.testing.transport.run import Run

# Seconds. A group's timeout, and what may come on top of it on a machine under load.
LIMIT = 2.0
SLACK = 5.0


class Faults(Ranked):
    """Nobody waits for ever, and nothing is left behind."""

    @check("robust")
    def test_a_silent_rank_is_an_error(self, ranks: Launcher) -> None:
        """A collective that one rank never calls is an error on the others, in the timeout."""
        ranks.run("faults:silent", 2, seconds=60, timeout=LIMIT, slack=SLACK).judge()

    @check("robust")
    def test_a_killed_rank_is_an_error(
        self, ranks: Launcher, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """A rank killed in a collective is an error on every other, within the timeout."""
        _strike(ranks, subject, figures, "SIGKILL")

    @check("robust")
    def test_a_stopped_rank_is_an_error(
        self, ranks: Launcher, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """A rank stopped in a collective is an error on every other, within the timeout."""
        _strike(ranks, subject, figures, "SIGSTOP")

    @check("robust")
    def test_groups_leave_nothing_behind(self, ranks: Launcher, subject: Subject) -> None:
        """Destroyed groups leave no thread, descriptor, file, shared memory or process."""
        need(subject, "all_reduce")
        run = _confirmed(lambda: ranks.run("remains:of_groups", 2))
        expect(not run.remains(), lambda: "after its ranks ended, " + "; ".join(run.remains()))

    @check("robust")
    def test_memory_does_not_grow(
        self, ranks: Launcher, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Collectives that are done hold no memory."""
        need(subject, "all_reduce")
        run = ranks.run("remains:of_collectives", 2).judge()
        figures["MiB after 120 MiB reduced"] = run.noted("grown_mebibytes")


def _strike(ranks: Launcher, subject: Subject, figures: dict[str, Any], signal: str) -> None:
    need(subject, "all_reduce")
    size = ranks.worlds(2, 3)[-1]
    run = _confirmed(
        lambda: ranks.run(
            "faults:struck", size, seconds=LIMIT + SLACK + 20, expendable=[size - 1],
            signal=signal, timeout=LIMIT, slack=SLACK,
        )
    )  # fmt: skip
    figures["error"] = run.noted("error")
    figures["seconds after the blow"] = run.noted("seconds")
    expect(
        not run.remains(),
        lambda: f"after a rank got {signal} and all have ended, " + "; ".join(run.remains()),
    )


def _confirmed(play: Callable[[], Run]) -> Run:
    """One run, or a second where the first seems to have left shared memory.

    ``/dev/shm`` is the whole machine's: another program may have left there what appeared during
    the run. What this transport leaves is there the second time too.
    """
    run = play()
    if any("shared memory" in line for line in (*run.problems(), *run.remains())):
        run = play()
    return run.judge()
