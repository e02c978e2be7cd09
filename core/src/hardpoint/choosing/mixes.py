"""Candidates that a partitioner makes of targets that run only a part of the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hardpoint.errors import HardpointError
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Objective
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.survey import Options

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Each costs a compilation of every part.
MOST = 8


def mixes(
    registry: Registry,
    partial: Mapping[Target, int],
    best: Candidate | None,
    objective: Objective,
    precisions: Sequence[Precision],
    options: Options,
) -> list[Candidate]:
    """What partitioners can make of each partial target with the best whole one for the rest; of
    all partial ones together where no target runs the whole program.

    :param partial: target -> operations that it supports.
    :param best: the best candidate that runs the whole program, as far as is known.
    :param precisions: that count. A backend that lacks one computes in fp32 instead.
    """
    useful = [target for target, covered in partial.items() if covered > 0]
    if best is None:
        groups = [(first, *(t for t in useful if t != first)) for first in useful]
        wished = list(precisions)
    else:
        groups = [(first, *best.targets) for first in useful]
        wished = [p for p in precisions if p in best.precisions.values()]
    made: dict[str, Candidate] = {}
    for name in _partitioners(registry, objective):
        for group in groups:
            targets = list({t.backend: t for t in reversed(group)}.values())[::-1]
            for precision in wished if len(targets) > 1 else ():
                chosen = _precisions(registry, targets, precision, precisions)
                if chosen is not None:
                    given = {b: dict(options[b]) for b in chosen if b in options}
                    one = Candidate(tuple(targets), chosen, "", given, name)
                    made.setdefault(one.key, one)
    return list(made.values())[:MOST]


def _partitioners(registry: Registry, objective: Objective) -> list[str]:
    """Those that can be used, the ones that weigh costs first."""
    found = []
    for name, _ in registry.available("partitioner").ready:
        if registry.record("partitioner", name).dist:
            info = registry.info("partitioner", name)
            if objective in info.objectives:
                found.append((not info.uses_costs, name))
    return [name for _, name in sorted(found)]


def _precisions(
    registry: Registry,
    targets: Sequence[Target],
    precision: Precision,
    allowed: Sequence[Precision],
) -> dict[str, Precision] | None:
    """What each backend computes in: ``precision`` where it can, else wider, else what is allowed.

    ``None`` where a backend has none that is allowed.
    """
    chosen: dict[str, Precision] = {}
    for target in targets:
        try:
            declared = registry.info("backend", target.backend).precisions
        except HardpointError:  # it was left out, and the survey says why
            return None
        # fp32 is the program's own arithmetic: it is within what any precision is allowed.
        wished: tuple[Precision, ...] = (precision, "fp32", *allowed)
        usable = [p for p in wished if p in declared]
        if not usable:
            return None
        chosen[target.backend] = usable[0]
    return chosen
