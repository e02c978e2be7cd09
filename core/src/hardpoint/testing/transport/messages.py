"""Checks of work under way, and of messages from one rank to another."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.launcher import Launcher, Ranked
from hardpoint.testing.transport.names import collectives_of


def need(subject: Subject, *collectives: str) -> None:
    """Skip the check unless the transport declares them all."""
    declared = collectives_of(subject.info)
    lacking = [name for name in collectives if name not in declared]
    skip_unless(not lacking, f"it does not declare {', '.join(lacking)}")


class Messages(Ranked):
    """Asynchronous work, barriers, send and recv, objects."""

    @check("communicates")
    def test_work_may_be_in_flight(self, ranks: Launcher, subject: Subject) -> None:
        """Several collectives are begun in one order, and waited for in any."""
        need(subject, "all_reduce")
        ranks.run("works:in_flight", 2).judge()

    @check("communicates")
    def test_work_is_not_complete_before_it_is(self, ranks: Launcher, subject: Subject) -> None:
        """Work that another rank has not begun is neither complete nor waited for."""
        need(subject, "all_reduce")
        ranks.run("works:not_before", 2).judge()

    @check("communicates")
    def test_work_has_a_future(self, ranks: Launcher, subject: Subject) -> None:
        """The future of an async all_reduce gives the reduced tensor: DDP builds on it."""
        need(subject, "all_reduce")
        ranks.run("works:futures", 2).judge()

    @check("communicates")
    def test_barrier_holds_everyone(self, ranks: Launcher, subject: Subject) -> None:
        """No rank leaves a barrier before every rank has come."""
        need(subject, "barrier")
        ranks.run("works:barriers", ranks.worlds(2, 3)[-1]).judge()

    @check("communicates")
    def test_messages_arrive_in_order(self, ranks: Launcher, subject: Subject) -> None:
        """Messages sent alone, at once and in batches arrive whole and in order."""
        need(subject, "send", "recv")
        ranks.run("points:messages", 2).judge()

    @check("communicates")
    def test_tags_and_any_source_are_right_or_refused(
        self, ranks: Launcher, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Tags tell messages apart and recv takes from anyone; or both are refused."""
        need(subject, "send", "recv")
        run = ranks.run("points:extras", ranks.worlds(2, 3)[-1]).judge()
        figures["refused"] = run.noted("refused")

    @check("communicates")
    def test_objects_travel(self, ranks: Launcher, subject: Subject) -> None:
        """Pickled objects of different sizes reach every rank."""
        skip_unless(
            {"all_gather", "broadcast"} & collectives_of(subject.info),
            "it declares neither all_gather nor broadcast, which carry objects",
        )
        dtypes = subject.info.dtypes
        skip_unless(
            not dtypes or {"uint8", "int64"} <= set(dtypes),
            "it does not declare uint8 and int64, in which objects travel",
        )
        ranks.run("points:objects", ranks.worlds(2, 3)[-1]).judge()
