"""Which arithmetic each backend of a plan computes in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.errors import ConfigError, did_you_mean
from hardpoint.interfaces.backend import PRECISIONS, Precision

# What a caller may ask for: one for all, the fastest that is good enough, or one by backend.
PrecisionAsked = Precision | Literal["auto"] | Mapping[str, Precision]


@dataclass(frozen=True, slots=True)
class Precisions:
    """A precision for each backend.

    :param general: for every backend that ``named`` does not name.
    :param named: backend -> its own.
    """

    general: Precision = "fp32"
    named: Mapping[str, Precision] = field(default_factory=dict)

    def of(self, backend: str) -> Precision:
        """What ``backend`` computes in."""
        return self.named.get(backend, self.general)

    def limit(self, backends: Iterable[str]) -> float:
        """The error accepted where the caller names none: that of the coarsest in use."""
        used = {self.of(b) for b in backends} or {self.general}
        return max(DEFAULT_MAX_ERROR[p] for p in used)

    def in_words(self, backends: Iterable[str]) -> str:
        """``"fp16"``, or ``"simnpu fp16, cpu fp32"`` where they differ."""
        used = {b: self.of(b) for b in backends}
        if len(set(used.values())) == 1:
            return next(iter(used.values()))
        return ", ".join(f"{b} {p}" for b, p in used.items()) or self.general


def read_precision(asked: PrecisionAsked, backends: Iterable[str]) -> Precisions | None:
    """What the caller asked for, checked; ``None`` for ``"auto"``.

    :param backends: those that the plan considered.
    :raises ConfigError: no precision, or a backend that is not in the plan.
    """
    named = dict(asked) if isinstance(asked, Mapping) else {}
    known = list(dict.fromkeys(backends))
    for backend in named:
        if backend not in known:
            raise ConfigError(
                f"precision names {backend!r}, which is no backend of this plan",
                remedy=did_you_mean(backend, known),
            )
    if asked == "auto":
        return None
    general: Precision = "fp32" if isinstance(asked, Mapping) else asked
    for precision in (general, *named.values()):
        if precision not in PRECISIONS:
            raise ConfigError(
                f"{precision!r} is no precision",
                remedy=did_you_mean(str(precision), [*PRECISIONS, *([] if named else ["auto"])]),
            )
    return Precisions(general, named)
