"""What is asked of a benchmark, checked before anything is run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hardpoint.benching.variants import DEFAULT
from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import OBJECTIVES, Objective
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.running import ROUND_SECONDS, ROUNDS


@dataclass(frozen=True, slots=True)
class Request:
    """A benchmark that is wanted.

    :param targets: ``None``: every device of every available backend.
    :param precisions: ``None``: all that each backend declares.
    :param variants: ``None``: all of each backend; else words, ``"default"`` for its defaults.
    :param batches: samples in a call; empty: as the examples are.
    :param objective: what the rows are sorted by; ``"throughput"``: a caller a core.
    :param max_error: what is beyond is a failure, and not timed. ``None``: it is timed, and marked
        where it is beyond what is usual for its precision.
    :param rounds: of each candidate. :param round_seconds: how long one lasts.
    :param budget: seconds in all; when they are spent, nothing more is compiled.
    :raises ConfigError: one of them is unusable.
    """

    targets: Sequence[str | Target] | None = None
    precisions: Sequence[Precision] | None = None
    variants: Sequence[str] | None = None
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    batches: Sequence[int] = ()
    objective: Objective = "latency"
    max_error: float | None = None
    rounds: int = ROUNDS
    round_seconds: float = ROUND_SECONDS
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            near = did_you_mean(str(self.objective), OBJECTIVES)
            raise ConfigError(f"{self.objective!r} is no objective", remedy=near)
        for name in ("rounds", "round_seconds", "budget"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}", remedy="give a number above 0")
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise ConfigError(
                f"max_error is {self.max_error}",
                remedy="give a finite number of at least 0, or none, to see all errors",
            )
        for batch in self.batches:
            if batch < 1:
                raise ConfigError(f"{batch} is no batch size", remedy="give numbers above 0")

    def limit(self, candidate: Candidate) -> float:
        """The greatest error that counts as right: what was asked, else what is usual."""
        if self.max_error is not None:
            return self.max_error
        return max(DEFAULT_MAX_ERROR[p] for p in candidate.precisions.values())

    def wants(self, candidate: Candidate) -> bool:
        """Whether its variant counts."""
        return self.variants is None or (candidate.variant or DEFAULT) in self.variants

    def check_variants(self, candidates: Sequence[Candidate]) -> None:
        """:raises ConfigError: no candidate has one of the variants that are wanted."""
        known = list(dict.fromkeys(c.variant or DEFAULT for c in candidates))
        for word in self.variants or ():
            if candidates and word not in known:
                near = did_you_mean(word, known)
                raise ConfigError(f"no backend here has a variant {word!r}", remedy=near)
