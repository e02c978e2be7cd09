"""The checks of a backend's operators."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.check import check, expect
from hardpoint.testing.operators.attempt import BAD
from hardpoint.testing.operators.run import operators_of
from hardpoint.testing.operators.tally import listing
from hardpoint.testing.subject import Subject


class OperatorChecks:
    """Op by op from PyTorch's own operator database: see :mod:`hardpoint.testing.operators`."""

    @check("computes")
    def test_claims_some_operator(self, subject: Subject, figures: dict[str, Any]) -> None:
        """It claims some of the operators that PyTorch's own database has samples of."""
        subject.require_available()
        tally = operators_of(subject)
        figures["claimed"] = len(tally.claimed)
        expect(
            tally.claimed,
            lambda: (
                "support() claims no operator of PyTorch's database: nothing of a model would "
                f"ever run on it ({tally.summary()}). Its reasons:\n{listing(tally.results)}"
            ),
        )

    @check("computes")
    def test_claimed_operators_compile(self, subject: Subject, figures: dict[str, Any]) -> None:
        """What support() claims, compile() and load() accept."""
        subject.require_available()
        tally = operators_of(subject)
        refused = tally.failures({"refused"})
        figures["refused"] = len(refused)
        expect(
            not refused,
            lambda: (
                f"{len(refused)} samples that support() claims are refused afterwards "
                f"({tally.summary()}); support() must look at arguments and dtypes, and say no "
                f"itself, with the reason:\n{listing(refused)}"
            ),
        )

    @check("computes")
    def test_operators_are_right(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Every operator that it claims gives what eager PyTorch gives, within the tolerance."""
        subject.require_available()
        tally = operators_of(subject)
        figures["operators"] = tally.figures()
        bad = tally.failures(BAD - {"refused"})
        expect(
            not bad,
            lambda: (
                f"{len(bad)} samples of claimed operators are not right "
                f"({tally.summary()}):\n{listing(bad)}"
            ),
        )
        expect(
            not tally.untried,
            f"{tally.untried} samples were not tried, as too many before them crashed or hung, if "
            "expectedly; mend those first, or name others with pytest's --operators",
        )
        outdated = list(tally.outdated())
        expect(
            not outdated,
            lambda: (
                "these expected failures do not fail any more; take them out of "
                f"conformance.toml: {', '.join(outdated)}"
            ),
        )
