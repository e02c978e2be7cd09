"""What the caller wants of a choice, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hardpoint.choosing.budget import Budget
from hardpoint.compiler.precision import PrecisionAsked
from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.backend import PRECISIONS, Precision
from hardpoint.interfaces.partitioner import OBJECTIVES, Objective
from hardpoint.measuring.candidate import Candidate

# What precision="auto" accepts where the caller names no limit.
AUTO_MAX_ERROR = 1e-2


@dataclass(frozen=True, slots=True)
class Request:
    """A choice that is wanted.

    :param precisions: that count.
    :param max_error: greatest error by precision. :param options: backend -> its own.
    """

    objective: Objective
    precisions: tuple[Precision, ...]
    max_error: Mapping[Precision, float]
    options: Mapping[str, Mapping[str, object]]
    budget: Budget

    def limit(self, candidate: Candidate) -> float:
        """The greatest error that ``candidate`` may have."""
        used = [self.max_error[p] for p in candidate.precisions.values() if p in self.max_error]
        return max(used, default=DEFAULT_MAX_ERROR["fp32"])

    def to_json(self) -> dict[str, Any]:
        """What the same choice has in common, whatever time it is given."""
        return {
            "objective": self.objective,
            "precisions": sorted(self.precisions),
            "max_error": dict(self.max_error),
            "options": {backend: dict(chosen) for backend, chosen in self.options.items()},
            "memory": self.budget.memory,
        }


def read_request(
    objective: Objective,
    precision: PrecisionAsked,
    max_error: float | None,
    options: Mapping[str, Mapping[str, object]] | None,
    budget: Budget | float | None,
) -> Request:
    """The request of :func:`hardpoint.compile`'s arguments.

    :param precision: ``"auto"``: all, within ``max_error`` (default 1e-2).
    :raises ConfigError: one of them is unusable.
    """
    if objective not in OBJECTIVES:
        near = did_you_mean(objective, OBJECTIVES)
        raise ConfigError(f"{objective!r} is no objective", remedy=near)
    if isinstance(precision, Mapping):
        raise ConfigError(
            "precision gives each backend its own, and targets='auto' has yet to choose them",
            remedy="ask for one precision or 'auto', or plan for named targets first",
        )
    if precision == "auto":
        limit = AUTO_MAX_ERROR if max_error is None else max_error
        limits = dict.fromkeys(PRECISIONS, limit)
        return Request(objective, PRECISIONS, limits, options or {}, Budget.read(budget))
    if precision not in PRECISIONS:
        near = did_you_mean(str(precision), [*PRECISIONS, "auto"])
        raise ConfigError(f"{precision!r} is no precision", remedy=near)
    limit = DEFAULT_MAX_ERROR[precision] if max_error is None else max_error
    return Request(objective, (precision,), {precision: limit}, options or {}, Budget.read(budget))
