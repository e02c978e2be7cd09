"""Loading and opening more than once."""

from __future__ import annotations

import gc
from typing import Any

from hardpoint.registry.registry import Registry
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.every.inside.use import Broken, prepare, use
from hardpoint.testing.subject import Subject


class TwiceChecks:
    """Nothing about a provider is used up by using it."""

    @check("loads")
    def test_registers_twice(self, subject: Subject) -> None:
        """Two registries, and one that forgets and looks again, get the same answers."""
        kind, name = subject.kind, subject.name
        first, second = Registry(), Registry()
        info = first.info(kind, name)
        again = {
            "a second registry": second.info(kind, name),
            "loading it twice": (first.load(kind, name), first.info(kind, name))[1],
        }
        first.remove(kind, name)
        first.reload()
        again["remove and reload"] = first.info(kind, name)
        for how, other in again.items():
            expect(
                other == info,
                f"after {how}, hardpoint_{kind}_info answered {other}, and {info} at first: "
                "a provider's info does not change, and does not count who asks",
            )
        answers = [registry.probe(kind, name).available for registry in (first, second, first)]
        expect(
            len(set(answers)) == 1,
            f"asked three times through two registries, its probe said available={answers}",
        )

    @check("loads")
    def test_opens_twice(self, subject: Subject) -> None:
        """Each open gives an object of its own, and one outlives the other."""
        provider: Any = subject.open()
        other: Any = subject.open()
        expect(
            provider is not other,
            f"hardpoint_{subject.kind}_open gave the same {type(provider).__name__} twice: two "
            "hosts with two configurations would share it. Make a new one for each call",
        )
        prepared = prepare(subject.kind)
        _work(provider, prepared, "the first of two")
        del provider
        gc.collect()
        _work(other, prepared, "the second, after the first was let go,")


def _work(provider: Any, prepared: Any, which: str) -> None:
    try:
        use(provider, prepared)
    except Broken as broken:
        fail(f"{which} does not work: {broken}")
    except Exception as error:
        fail(f"{which} does not work: it raised {type(error).__name__}: {error}")
