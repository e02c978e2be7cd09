"""Checks of how groups are made, and of several of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from hardpoint.errors import did_you_mean
from hardpoint.testing.check import check, expect
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.launcher import Launcher, Ranked
from hardpoint.testing.transport.messages import need

# Seconds. The timeout, and what comes on top: the search for who is missing, a machine under load.
LIMIT = 2.0
SLACK = 10.0


class Groups(Ranked):
    """What is declared, entrances, sub-groups, several groups, and who never comes."""

    @check("loads")
    def test_declares_what_pytorch_knows(self, subject: Subject) -> None:
        """Its info names devices, collectives, dtypes and reductions as PyTorch does."""
        info = subject.info
        expect(info.devices, "info.devices is empty: whose tensors does it move?")
        expect(info.collectives, "info.collectives is empty: it would never be asked anything")
        for name in info.devices:
            expect(_is_device(name), f"info.devices names {name!r}, which PyTorch does not know")
        known = {
            "collectives": [name for name in dir(dist) if callable(getattr(dist, name))],
            "dtypes": [n for n in dir(torch) if isinstance(getattr(torch, n), torch.dtype)],
            "reductions": list(dist.ReduceOp.RedOpType.__members__),
        }
        for field, names in known.items():
            for name in getattr(info, field):
                expect(
                    name in names,
                    f"info.{field} names {name!r}, which PyTorch does not know;"
                    f" {did_you_mean(name, names)[:200]}",
                )

    @check("communicates")
    def test_every_entrance_works(self, ranks: Launcher, subject: Subject) -> None:
        """A group can be had from hardpoint, from PyTorch, by a mesh, and from the contract."""
        need(subject, "all_reduce")
        ranks.run("groups:entrances", 2).judge()

    @check("communicates")
    def test_groups_can_be_made_again(self, ranks: Launcher, subject: Subject) -> None:
        """A process may destroy its group and make it anew, in the same store."""
        need(subject, "all_reduce")
        ranks.run("groups:again", 2).judge()

    @check("communicates")
    def test_subgroups_are_apart(self, ranks: Launcher, subject: Subject) -> None:
        """In a group of some ranks every collective is among these alone, in their order."""
        need(subject, "all_reduce")
        ranks.run("groups:subgroups", ranks.worlds(2, 3)[-1]).judge()

    @check("communicates")
    def test_groups_work_at_once(self, ranks: Launcher, subject: Subject) -> None:
        """Several groups of the same ranks may have work under way at the same time."""
        need(subject, "all_reduce")
        ranks.run("groups:at_once", ranks.worlds(2, 3)[-1]).judge()

    @check("robust")
    def test_a_rank_that_never_comes_is_an_error(
        self, ranks: Launcher, figures: dict[str, Any]
    ) -> None:
        """A group that lacks a rank is a TransportError on the others, within the timeout."""
        run = ranks.run("groups:absent", 2, seconds=30, timeout=LIMIT, slack=SLACK).judge()
        figures["error"] = run.noted("error")
        figures["seconds"] = run.noted("seconds")


def _is_device(name: str) -> bool:
    try:
        return bool(torch.device(name).type == name)
    except RuntimeError:
        return False
