"""What an executable says of itself."""

from __future__ import annotations

from typing import Any

from hardpoint.compiler.executed import executed
from hardpoint.errors import HardpointError
from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import LAYERS, UNARY, floats
from hardpoint.testing.check import check, expect, fail
from hardpoint.testing.subject import Subject


class SaidChecks:
    """``Executable.facts``."""

    @check("computes")
    def test_facts_are_true(self, subject: Subject, figures: dict[str, Any]) -> None:
        """``facts()`` is JSON, names a precision no narrower than the one asked for, if it names
        one, and says the same before and after a call.
        """
        bench, inputs = bench_of(subject), floats(8, 8)
        ready = bench.claimed({**LAYERS, **UNARY}, inputs)
        with ready.opened() as opened:
            try:
                before = executed(opened, bench.precision)
                ready.call(opened, inputs)
                after = executed(opened, bench.precision)
            except HardpointError as error:
                fail(f"{ready.small.name!r}, compiled for {bench.precision}: {error}")
            figures["facts"] = dict(before)
            figures["asked"] = bench.precision
            said, then = before.get("precision"), after.get("precision")
            expect(
                said == then,
                lambda: f"facts() says precision {said!r} before the first call, {then!r} after it",
            )
