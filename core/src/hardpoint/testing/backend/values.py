"""Calls with numbers that are lost easily: NaN, infinity, large integers, booleans."""

from __future__ import annotations

from typing import Any

import torch

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import BINARY, EXACT, LAYERS, LOGICAL, MIXING, UNARY, floats
from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject

_NAN, _INF = float("nan"), float("inf")
# gelu(-inf) is NaN in eager, by its formula, and 0 elsewhere, by its limit: neither is a flaw.
_FLOATS = {n: s for n, s in {**LAYERS, **UNARY, **BINARY, **MIXING}.items() if n != "gelu"}
_LARGE = (2**31 + 5, -(2**33) + 1, -7, 7, 2**53 + 1, 0, -1, 123_456_789_012)
_OTHER = (4, 3, 2, -2, 1, 5, -1, 7)


class ValueChecks:
    """Values that a narrower arithmetic, or a careless kernel, would lose."""

    @check("computes")
    def test_nan_and_infinity(self, subject: Subject, figures: dict[str, Any]) -> None:
        """NaN and infinities come out exactly where eager has them."""
        bench, examples = bench_of(subject), floats(6, 8)
        skip_unless(bench.precision != "int8", "int8 holds neither NaN nor infinity")
        ready = bench.claimed(_FLOATS, examples)
        figures["programs"] = [p.name for p in ready.parts]
        x, y = (t.clone() for t in examples)
        for i, value in enumerate((_NAN, _INF, -_INF)):
            x[i, i + 1] = y[i + 3, i] = value
        with ready.opened() as opened:
            got = ready.call(opened, [x, y])
        ready.judge(got, [x, y], "with NaN and infinities")

    @check("computes")
    def test_integers(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Integers, if it claims them, are exact: past 2^31 and 2^53, and negative ones divided."""
        inputs = [torch.tensor(values).repeat(2, 1) for values in (_LARGE, _OTHER)]
        ready = bench_of(subject).claimed(EXACT, inputs)
        figures["programs"] = [p.name for p in ready.parts]
        with ready.opened() as opened:
            ready.judge(ready.call(opened, inputs), inputs, "of 64-bit integers")

    @check("computes")
    def test_booleans(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Booleans, if it claims them, stay booleans and are right."""
        x, y = [True, True, False, False] * 2, [True, False] * 4
        inputs = [torch.tensor(values).repeat(2, 1) for values in (x, y)]
        ready = bench_of(subject).claimed(LOGICAL, inputs)
        figures["programs"] = [p.name for p in ready.parts]
        with ready.opened() as opened:
            ready.judge(ready.call(opened, inputs), inputs, "of booleans")
