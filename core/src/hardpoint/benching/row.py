"""One line of a benchmark: a candidate at a batch size. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.results import (
    Built,
    Errors,
    Failure,
    Start,
    Timing,
    errors_from_json,
    worse,
)

# waiting, building, ready: on the way. timed: with all figures. failed: see the failure, which is
# also why a target has no candidate. not tried: the time was spent.
State = Literal["waiting", "building", "ready", "timed", "failed", "not tried"]
EAGER = "eager PyTorch"


@dataclass(frozen=True, slots=True)
class BenchRow:
    """What is known of a candidate. ``None``: not known. Seconds and bytes throughout.

    :param target: ``"openvino:CPU"``; eager PyTorch stands there under its own name.
    :param precision: that was asked for.
    :param variant: of the backend's; ``""``: its defaults.
    :param batch: samples in a call; 0 where nothing was run.
    :param options: backend -> its options, the variant's among them.
    :param errors: against eager PyTorch, on these inputs, and on the examples as they are.
    :param limit: greatest error that counts as right; ``None``: none was asked, nor is one usual.
    :param bytes: of the package, which carries the program beside what was compiled.
    :param artifact_bytes: of what was compiled alone, its weights included.
    :param compile_seconds: what the backend took to compile.
    :param cold_seconds: in a new process, from ``hardpoint.load`` to the end of the first call,
        the import of the backend's runtime included. Known at the least batch, where it started.
    :param process_seconds: the same from the start of the process: Python, PyTorch and hardpoint
        are imported, too.
    :param memory_bytes: greatest resident memory of the process.
    :param executed: segment -> what its runtime says that it does.
    :param front: nothing else within its limit is both faster and nearer to eager, at this batch.
    :param remark: what a reader should know, in words.
    """

    target: str
    precision: str = ""
    variant: str = ""
    batch: int = 0
    state: State = "waiting"
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    timing: Timing | None = None
    errors: Errors | None = None
    limit: float | None = None
    bytes: int | None = None
    artifact_bytes: int | None = None
    compile_seconds: float | None = None
    cold_seconds: float | None = None
    process_seconds: float | None = None
    memory_bytes: int | None = None
    executed: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    failure: Failure | None = None
    front: bool = False
    remark: str = ""

    @classmethod
    def of(cls, candidate: Candidate | None, batch: int, limit: float | None = None) -> BenchRow:
        """A row that waits; ``None`` is eager PyTorch."""
        if candidate is None:
            return cls(EAGER, batch=batch)
        return cls(
            candidate.target, candidate.precision, candidate.variant, batch,
            options=candidate.options, limit=limit,
        )  # fmt: skip

    @property
    def eager(self) -> bool:
        """Whether it is the baseline."""
        return self.target == EAGER

    @property
    def label(self) -> str:
        """The candidate's name, without the batch."""
        return " ".join(filter(None, (self.target, self.precision, self.variant)))

    @property
    def within(self) -> bool:
        """Whether its results count as right: not beyond the limit, or not comparable."""
        return self.errors is None or self.limit is None or self.errors.max <= self.limit

    def built(self, built: Built) -> BenchRow:
        """With the figures of the build."""
        return replace(
            self, state="ready", errors=built.errors, bytes=built.bytes,
            artifact_bytes=built.artifact_bytes,
            compile_seconds=built.compile_seconds, executed=built.executed,
        )  # fmt: skip

    def begun(self, start: Start) -> BenchRow:
        """With how it started in a process of its own, at this batch."""
        return replace(
            self, state="ready", errors=worse(self.errors, start.errors),
            memory_bytes=start.memory_bytes,
            cold_seconds=start.load_seconds + start.first_seconds,
            process_seconds=start.cold_seconds,
        )  # fmt: skip

    def timed(self, timing: Timing) -> BenchRow:
        """With figures of its rounds."""
        return replace(self, state="timed", timing=timing, memory_bytes=timing.peak_bytes)

    def failed(self, failure: Failure) -> BenchRow:
        """With why there are no (more) figures."""
        return replace(self, state="failed", failure=failure)

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable; :func:`row_from_json` reads it back."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("timing", "errors", "failure"):
            if plain[name] is not None:
                plain[name] = plain[name].to_json()
        return plain


def row_from_json(data: Mapping[str, Any]) -> BenchRow:
    """What :meth:`BenchRow.to_json` wrote.

    :raises KeyError: or TypeError, ValueError: it is something else.
    """
    plain = {f.name: data[f.name] for f in fields(BenchRow)}
    timing, failure = data["timing"], data["failure"]
    plain["timing"] = None if timing is None else Timing(**timing)
    plain["failure"] = None if failure is None else Failure(**failure)
    plain["errors"] = errors_from_json(data["errors"])
    return BenchRow(**plain)
