"""Checks of what collectives make of tensors."""

from __future__ import annotations

from typing import Any

from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject
from hardpoint.testing.transport.launcher import Launcher, Ranked
from hardpoint.testing.transport.names import collectives_of

_REDUCE = {"all_reduce", "reduce", "reduce_scatter", "reduce_scatter_tensor"}


class Collectives(Ranked):
    """Every collective, dtype, reduction and size, against gloo."""

    @check("communicates")
    def test_collectives_are_right(self, ranks: Launcher, figures: dict[str, Any]) -> None:
        """Every declared collective gives every rank what it must, among one, two and three."""
        for size in ranks.worlds(1, 2, 3):
            run = ranks.run("collectives:each", size).judge()
            figures[f"cases with {size} ranks"] = run.noted("cases")

    @check("communicates")
    def test_reductions_are_right(
        self, ranks: Launcher, subject: Subject, figures: dict[str, Any]
    ) -> None:
        """Every reduction of every dtype that gloo reduces, or that it declares, is right."""
        skip_unless(_REDUCE & collectives_of(subject.info), "it declares no reducing collective")
        run = ranks.run("collectives:reductions", ranks.worlds(2, 3)[-1]).judge()
        figures["cases"] = run.noted("cases")

    @check("communicates")
    def test_dtypes_are_moved_bit_for_bit(self, ranks: Launcher, figures: dict[str, Any]) -> None:
        """Every dtype that gloo moves, or that it declares, arrives as it was sent."""
        run = ranks.run("collectives:dtypes", 2).judge()
        figures["cases"] = run.noted("cases")

    @check("communicates")
    def test_sizes_zero_and_uneven(self, ranks: Launcher, figures: dict[str, Any]) -> None:
        """Empty tensors, sizes that nothing divides, and shares that differ are right."""
        run = ranks.run("collectives:sizes", ranks.worlds(2, 3)[-1]).judge()
        figures["cases"] = run.noted("cases")

    @check("communicates")
    def test_large_tensors_are_right(self, ranks: Launcher) -> None:
        """64 MiB at once are as right as a few bytes."""
        ranks.run("collectives:large", 2).judge()

    @check("communicates")
    def test_strided_tensors_are_right_or_refused(
        self, ranks: Launcher, figures: dict[str, Any]
    ) -> None:
        """Tensors that are not contiguous are treated rightly, or refused on every rank."""
        run = ranks.run("collectives:strided", 2).judge()
        figures["refused"] = run.noted("refused")
