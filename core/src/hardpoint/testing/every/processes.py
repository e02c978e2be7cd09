"""A provider in children of its process, and in many threads."""

from __future__ import annotations

import os
from typing import Any

from hardpoint.testing.check import check, expect, skip_unless
from hardpoint.testing.every.asking import ask
from hardpoint.testing.subject import Subject


class ProcessChecks:
    """Where hosts run providers: in data loaders, in servers, in pools."""

    @check("loads")
    def test_survives_fork(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A forked child can use it; also one forked after it was opened, or it says why not."""
        skip_unless(hasattr(os, "fork"), "this system cannot fork")
        found, _ = ask(subject, "fork", what="opening it and forking")
        before, after = found["before"], found["after"]
        figures["forked before it is opened"] = before["how"]
        figures["forked after it is opened"] = after["how"]
        expect(
            before["how"] == _expected(subject),
            f"in a child forked before it was loaded, loading, opening and using it "
            f"{_said(before)}; here its probe says available={subject.probe.available}",
        )
        # Some drivers cannot be used in a child of a process that uses them. Then it must say so.
        expect(
            after["how"] in ("works", "unavailable", "refused"),
            f"in a child forked after it was opened, loading, opening and using it "
            f"{_said(after)}. Look for locks and handles that are made at import "
            "or in open: make them anew in the child (os.register_at_fork), or raise a "
            "ProviderUnavailable that says to use 'spawn'",
        )

    @check("loads")
    def test_survives_spawn(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A process that multiprocessing spawns can use it, while its parent has it open."""
        found, _ = ask(subject, "spawn", what="opening it and spawning a process")
        figures["spawned"] = found["how"]
        expect(
            found["how"] == _expected(subject),
            f"in a spawned process, loading, opening and using it {_said(found)}; here its probe "
            f"says available={subject.probe.available}",
        )

    @check("loads")
    def test_survives_threads(self, subject: Subject) -> None:
        """Eight threads that load, probe, open and use it at once all succeed."""
        what = "loading, probing, opening and using it from 8 threads at once"
        found, _ = ask(subject, "threads", what=what)
        expect(not found["problems"], lambda: f"{what}: {'; '.join(sorted({*found['problems']}))}")
        expect(
            len(found["types"]) == 1,
            f"8 threads that opened it at once got objects of different types: {found['types']}",
        )
        expect(found["loads"] == 1, f"8 threads loaded it {found['loads']} times instead of once")


def _expected(subject: Subject) -> str:
    return "works" if subject.probe.available else "unavailable"


def _said(found: dict[str, str]) -> str:
    return f"ended as '{found['how']}' ({found['words']})"
