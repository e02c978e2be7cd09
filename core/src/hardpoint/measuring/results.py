"""What measuring gives: data alone, JSON-serializable. Imports no torch.

Seconds are seconds and sizes are bytes, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from hardpoint.measuring.candidate import Candidate
from hardpoint.numerics import json_number

# not whole: the target does not run all operations. refused: an error of ours, in words.
# raised: any other exception. wrong: numbers too far from eager's. crashed: the process ended, or
# lost its device. memory: over the limit, or none left. left out: nothing was tried, and why.
FailureKind = Literal[
    "not whole", "refused", "raised", "wrong", "crashed", "hung", "memory", "left out"
]
FAILURE_KINDS: tuple[FailureKind, ...] = get_args(FailureKind)

# The precision whose ranges come from the examples, and what is said where its error does, too.
CALIBRATED = "int8"
SAME_DATA = (
    "int8 is calibrated on the examples, and its error is measured on the same: on other inputs it "
    "may be greater. Give some that it has not seen with check_inputs=, or --check-inputs FILE."
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a candidate has no figures.

    :param kind: one of :data:`FAILURE_KINDS`.
    :param stage: what was being done, e.g. ``"compile s0 for openvino"``, ``"first call"``.
    :param reason: in words, one line.
    """

    kind: FailureKind
    stage: str
    reason: str

    def __str__(self) -> str:
        how = "" if self.kind in ("not whole", "refused", "left out") else f"{self.kind} "
        where = f"in {self.stage}: " if how and self.stage else ": " if how else ""
        return f"{how}{where}{self.reason}"

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Errors:
    """How far results are from eager PyTorch's, over all results; see ``hardpoint.numerics``.

    :param max: greatest :attr:`hardpoint.numerics.Difference.error`; infinite where NaN or exact
        values differ.
    :param mean: greatest mean absolute difference of a result.
    :param cosine: least cosine of a result.
    :param agreement: share of samples whose greatest logit is eager's; ``None`` where no result
        looks like a classifier's logits.
    :param samples: how many samples that share is of.
    :param relative: greatest :attr:`hardpoint.numerics.Difference.relative` of a result.
    """

    max: float
    mean: float
    cosine: float
    agreement: float | None = None
    samples: int = 0
    relative: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable: what is not finite is a string, as JSON has no such number."""
        data = asdict(self)
        return data | {name: json_number(data[name]) for name in _NOT_ALWAYS_FINITE}


_NOT_ALWAYS_FINITE = ("max", "mean", "relative")


def worse(one: Errors | None, other: Errors | None) -> Errors | None:
    """The greater of two errors; of one that is known and one that is not, the known one."""
    if one is None or (other is not None and other.max > one.max):
        return other
    return one


def errors_from_json(data: Mapping[str, Any] | None) -> Errors | None:
    """What :meth:`Errors.to_json` wrote."""
    if data is None:
        return None
    numbers = {name: float(data[name]) for name in _NOT_ALWAYS_FINITE if name in data}
    return Errors(**{**data, **numbers})


@dataclass(frozen=True, slots=True)
class Built:
    """A candidate that compiled, and whose package is on the disk.

    :param package: the file. :param bytes: its size; it carries the program, too.
    :param artifact_bytes: of what the backends compiled, weights included.
    :param compile_seconds: what the backends took to compile and to open what they compiled.
    :param verify_seconds: running each segment and the whole, and comparing with eager.
    :param peak_bytes: greatest resident memory of the process that did it; it held the program and
        every value that eager PyTorch computes as well.
    :param errors: of the compiled model on the example inputs; ``None``: it draws random numbers.
    :param executed: segment -> what its runtime said that it does (``Executable.facts``).
    :param segments: how many.
    """

    candidate: Candidate
    package: Path
    bytes: int
    compile_seconds: float
    verify_seconds: float
    peak_bytes: int
    errors: Errors | None
    executed: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    segments: int = 1
    artifact_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """How a process of its own began to run a package.

    :param cold_seconds: from the start of the process to its first result, without reading inputs.
    :param import_seconds: to the end of importing Python, PyTorch and hardpoint.
    :param load_seconds: ``hardpoint.load``, the backend's own import included.
    :param first_seconds: the first call.
    :param errors: of the first results against eager's; ``None``: not compared.
    :param memory_bytes: greatest resident memory up to the end of the first call.
    :param base_bytes: resident memory before loading.
    """

    cold_seconds: float
    import_seconds: float
    load_seconds: float
    first_seconds: float
    errors: Errors | None
    memory_bytes: int
    base_bytes: int

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable."""
        return {**asdict(self), "errors": None if self.errors is None else self.errors.to_json()}


@dataclass(frozen=True, slots=True)
class Timing:
    """Figures of timed rounds, in seconds a call where not said otherwise.

    :param p50: median of the rounds' medians. :param p95: of all calls. :param p99: of all calls.
    :param best: least median of a round.
    :param low: lower end of the interval of the median. :param high: its upper end.
    :param confidence: that the median lies in it, e.g. 0.965; 0 where the rounds are too few.
    :param rounds: how many. :param calls: how many in all.
    :param throughput: samples a second over all rounds, from ``callers`` threads.
    :param callers: threads that called at the same time.
    :param ratio: median over the rounds of eager's median ÷ this one's (with several callers: of
        the throughputs); 1 for eager itself, ``None`` without a baseline.
    :param peak_bytes: greatest resident memory of the process.
    """

    p50: float
    p95: float
    p99: float
    best: float
    low: float
    high: float
    confidence: float
    rounds: int
    calls: int
    throughput: float
    callers: int
    ratio: float | None
    peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """JSON-serializable."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one worker.

    :param calls: seconds of each call, in order (of all callers).
    :param seconds: that the round took. :param count: of calls in it.
    :param peak_bytes: greatest resident memory of the process so far.
    """

    calls: Sequence[float]
    seconds: float
    count: int
    peak_bytes: int
