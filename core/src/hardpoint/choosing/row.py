"""One line of a choice: a candidate with what is known of it. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from hardpoint.measuring.candidate import Candidate, from_json as read_candidate
from hardpoint.measuring.results import (
    Built,
    Errors,
    Failure,
    Start,
    Timing,
    errors_from_json,
    worse,
)

# winner, timed: to the end. slower: clearly, so it was given up early. ready: it runs, and needed
# no timing. failed: see the failure. not tried: the time was spent.
State = Literal["winner", "timed", "slower", "ready", "failed", "not tried"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a candidate. ``None``: not known. Seconds and bytes throughout.

    :param bytes: of its package. :param timing: in the last race that it took part in.
    :param segments: of its plan.
    """

    candidate: Candidate
    state: State
    errors: Errors | None = None
    timing: Timing | None = None
    failure: Failure | None = None
    bytes: int | None = None
    compile_seconds: float | None = None
    cold_seconds: float | None = None
    memory_bytes: int | None = None
    segments: int | None = None

    @property
    def label(self) -> str:
        """The candidate's name for people."""
        return self.candidate.label

    def built(self, built: Built) -> Row:
        """With the figures of the build."""
        return replace(
            self, state="ready", failure=None, errors=built.errors, bytes=built.bytes,
            compile_seconds=built.compile_seconds, segments=built.segments,
        )  # fmt: skip

    def begun(self, start: Start) -> Row:
        """With how it started in a process of its own; the greater of the errors counts."""
        return replace(
            self, errors=worse(self.errors, start.errors), cold_seconds=start.cold_seconds,
            memory_bytes=start.memory_bytes,
        )  # fmt: skip

    def failed(self, failure: Failure) -> Row:
        """With why it is out of the question."""
        return replace(self, state="failed", failure=failure)

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable; :func:`row_from_json` reads it back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            **plain,
            "label": self.label,
            "candidate": self.candidate.to_json(),
            "errors": None if self.errors is None else self.errors.to_json(),
            "timing": None if self.timing is None else asdict(self.timing),
            "failure": None if self.failure is None else asdict(self.failure),
        }


def row_from_json(data: Mapping[str, Any]) -> Row:
    """What :meth:`Row.to_json` wrote.

    :raises KeyError: or TypeError, ValueError: it is something else.
    """
    plain = {f.name: data[f.name] for f in fields(Row)}
    timing, failure = data["timing"], data["failure"]
    return Row(
        **{
            **plain,
            "candidate": read_candidate(data["candidate"]),
            "errors": errors_from_json(data["errors"]),
            "timing": None if timing is None else Timing(**timing),
            "failure": None if failure is None else Failure(**failure),
        }
    )
