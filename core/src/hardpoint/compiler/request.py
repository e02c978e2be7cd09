"""How a caller wants segments compiled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint.compiler.precision import Precisions
from hardpoint.compiler.verify import DEFAULT_MAX_ERROR, FLOAT64_MAX_ERROR, only_float64
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.planning.data import Segment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

Options = Mapping[str, Mapping[str, object]]
# Called with (segments done, segments in all, what is being done).
Progress = Callable[[int, int, str], None]


def read_chain(
    fallback: str | Target | Sequence[str | Target] | None, registry: Registry
) -> tuple[Target, ...]:
    """The targets of ``fallback=``.

    :raises ProviderNotFound: one of them is provided by nothing that is installed.
    """
    named = [fallback] if isinstance(fallback, (str, Target)) else list(fallback or ())
    chain = tuple(dict.fromkeys(map(Target.parse, named)))
    for target in chain:  # a typing error is told now, not when the device is lost
        registry.record("backend", target.backend)
    return chain


@dataclass(frozen=True)
class CompileRequest:
    """How to compile.

    :param precisions: what each backend computes in.
    :param max_error: greatest accepted :attr:`Difference.error`; ``None``: by precision.
    :param options: backend name -> its own options.
    :param isolate: compile each segment in a child process.
    :param timeout: seconds that a child may take for one segment.
    :param chain: where a segment goes whose device is lost or whose memory runs out.
    """

    precisions: Precisions
    max_error: float | None = None
    options: Options | None = None
    isolate: bool = False
    timeout: float | None = None
    progress: Progress | None = None
    chain: tuple[Target, ...] = ()

    def tell(self, done: int, of: int, doing: str) -> None:
        """Tell the caller how far it is, if that was asked for."""
        if self.progress:
            self.progress(done, of, doing)

    def limit(self, *targets: Target) -> float:
        """The greatest accepted error of what runs on ``targets``."""
        if self.max_error is not None:
            return self.max_error
        return self.precisions.limit(t.backend for t in targets)

    def limit_of(self, segment: Segment, precision: Precision) -> float:
        """The greatest accepted error of one segment, computed in ``precision``.

        Where all of it is float64 a runtime that computes in float32 is found out.
        """
        if self.max_error is not None:
            return self.max_error
        if precision == "fp32" and only_float64(segment.program):
            return FLOAT64_MAX_ERROR
        return DEFAULT_MAX_ERROR[precision]
