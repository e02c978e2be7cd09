"""A segment that was compiled, opened and verified; and what a model's facts say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.compiler.executed import executed
from hardpoint.compiler.request import CompileRequest
from hardpoint.compiler.segment import compile_segment
from hardpoint.compiler.verify import draws, verify_segment
from hardpoint.interfaces.backend import Precision
from hardpoint.numerics import Difference
from hardpoint.planning.data import Segment
from hardpoint.runtime.model import ModelFacts
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


@dataclass(frozen=True, eq=False)
class Made:
    """One segment, ready.

    :param precision: what it was asked to compute in. :param facts: what its runtime says.
    :param difference: from eager PyTorch; ``None`` where it draws random numbers.
    :param outputs: what its first call gave; empty where it draws.
    """

    segment: OpenedSegment
    precision: Precision
    facts: Mapping[str, object]
    difference: Difference | None
    outputs: Sequence[torch.Tensor]


def make_segment(
    segment: Segment,
    precision: Precision,
    registry: Registry,
    request: CompileRequest,
    reference: Mapping[str, torch.Tensor],
    tell: Callable[[str], None] = lambda doing: None,
) -> Made:
    """Compile, open and verify.

    :param reference: every value of the program in eager PyTorch, by name.
    :param tell: called with what is being done.
    :raises CompileError: it does not compile, or gives other numbers.
    """
    where = f"{segment.id} for {segment.target}"
    tell(f"compiling {where}")
    opened = compile_segment(
        segment, registry, precision, [reference[name] for name in segment.inputs],
        (request.options or {}).get(segment.target.backend, {}),
        isolate=request.isolate, timeout=request.timeout,
    )  # fmt: skip
    try:
        facts = executed(opened, precision)
        tell(f"verifying {where}")
        if draws(segment):
            return Made(opened, precision, facts, None, ())
        most = request.limit_of(segment, precision)
        difference, outputs = verify_segment(segment, opened, reference, most)
    except BaseException:
        opened.executable.close()
        raise
    return Made(opened, precision, facts, difference, outputs)


def with_segment(facts: ModelFacts, made: Made) -> ModelFacts:
    """``facts`` with what is known of a segment that was made, or made anew."""
    name, rows = made.segment.id, facts.plan["segments"]
    where = {"target": str(made.segment.target), "device": made.segment.device.name}
    assert isinstance(rows, list)
    plan = {**facts.plan, "segments": [{**r, **(where if r["id"] == name else {})} for r in rows]}
    figures: dict[str, Any] = dict(facts.verification)
    segments, said = dict(figures.get("segments", {})), dict(figures.get("executed", {}))
    for table, value in (
        (segments, made.difference and made.difference.to_json()),
        (said, dict(made.facts)),
    ):
        if value:
            table[name] = value
        else:
            table.pop(name, None)
    figures |= {"segments": segments, "executed": said}
    return facts._replace(plan=plan, verification=figures)


def with_fall_back(facts: ModelFacts, fact: Mapping[str, object]) -> ModelFacts:
    """``facts`` with one more entry of ``fell_back``, so that a package tells of it."""
    before: Any = facts.verification.get("fell_back", ())
    # What stands in for a segment is verified on the examples alone.
    figures = {**facts.verification, "fell_back": [*before, dict(fact)], "held_out": False}
    return facts._replace(verification=figures)
