"""What the results of all cases come to: counts, failures, and those that were expected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hardpoint.testing.operators.attempt import BAD, CLAIMED, STATES, UNTOUCHED, Result
from hardpoint.testing.operators.choose import is_named

# How an expected failure of the settings begins that is about an operator, not about a check.
PREFIX = "operator:"
_SHOWN = 8


@dataclass(frozen=True)
class Tally:
    """The outcome of one run.

    :param expected: ``NAME`` or ``NAME/dtype`` -> why it fails, from the settings.
    :param notes: what a reader must know beside the numbers, e.g. about the cache.
    :param untried: samples that were not run, because too many before them crashed or hung.
    """

    results: Sequence[Result]
    expected: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    notes: Sequence[str] = ()
    untried: int = 0

    @property
    def claimed(self) -> list[Result]:
        """What the backend says it can run."""
        return [r for r in self.results if r.state in CLAIMED]

    def failures(self, states: Collection[str]) -> list[Result]:
        """Results in one of ``states`` that the settings do not expect."""
        return [r for r in self.results if r.state in states and self.reason_for(r) is None]

    def reason_for(self, result: Result) -> str | None:
        """Why the settings expect this case to fail; ``None``: they do not."""
        for name, reason in self.expected.items():
            if is_named(result.case, name):
                return reason
        return None

    def outdated(self) -> Iterator[str]:
        """Expected failures of which every case that was run is right, or not claimed any more."""
        for name in self.expected:
            found = [r for r in self.results if is_named(r.case, name) and r.state not in UNTOUCHED]
            if found and not any(r.state in BAD for r in found):
                states = ", ".join(sorted({r.state.replace("_", " ") for r in found}))
                yield f"{PREFIX}{name} ({states})"

    def figures(self) -> dict[str, Any]:
        """For the report; JSON-serializable. ``run`` counts what the backend was asked about."""
        counts = Counter(r.state for r in self.results)
        asked = len(self.results) - sum(counts[state] for state in UNTOUCHED)
        names = {r.op for r in self.claimed}
        right = names - {r.op for r in self.claimed if r.state != "right"}
        return {
            "samples": len(self.results),
            "run": asked,
            "claimed": len(self.claimed),
            **{state: counts[state] for state in STATES},
            "untried": self.untried,
            "operators_claimed": len(names),
            "operators_right": len(right),
            "seconds": round(self.seconds, 1),
            "notes": list(self.notes),
            "cases": [self._row(r) for r in self.results],
        }

    def _row(self, result: Result) -> dict[str, str]:
        row = {
            "op": result.op,
            "variant": result.variant,
            "dtype": result.dtype,
            "state": result.state,
            "reason": result.reason,
        }
        known = self.reason_for(result) if result.state in BAD else None
        return row if known is None else {**row, "known": known}

    def summary(self) -> str:
        """``57 of 240 samples claimed, 55 right``."""
        right = sum(r.state == "right" for r in self.results)
        asked = self.figures()["run"]
        return f"{len(self.claimed)} of {asked} samples claimed, {right} right"


def listing(results: Sequence[Result]) -> str:
    """The first few, a line each."""
    lines = [f"  {r.case.label} {r.dtype}: {r.state}: {r.reason}" for r in results[:_SHOWN]]
    if len(results) > _SHOWN:
        lines.append(f"  and {len(results) - _SHOWN} more; the report lists them all")
    return "\n".join(lines)


def expected_operators(expected_failures: Mapping[str, str]) -> dict[str, str]:
    """Those of the settings' expected failures that are about operators, by their name."""
    return {
        name.removeprefix(PREFIX): reason
        for name, reason in expected_failures.items()
        if name.startswith(PREFIX)
    }
