"""What a runtime says that it computes in, held against what the caller asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hardpoint.errors import ContractViolation, VerificationError
from hardpoint.interfaces.backend import PRECISIONS, Precision
from hardpoint.runtime.step import OpenedSegment

# What may run where it was asked for: itself and wider. Quantized ones round on their way anyway.
_ALLOWED: Mapping[Precision, tuple[Precision, ...]] = {
    "fp32": ("fp32",),
    "bf16": ("fp32", "bf16"),
    "fp16": ("fp32", "fp16"),
}


def executed(opened: OpenedSegment, asked: Precision) -> Mapping[str, object]:
    """The facts of an executable (:meth:`hardpoint.Executable.facts`), checked.

    :raises ContractViolation: they are not what JSON can hold, or name no precision.
    :raises VerificationError: it computes in a narrower arithmetic than ``asked``.
    """
    facts = opened.executable.facts()
    try:
        known: Mapping[str, object] = json.loads(json.dumps(dict(facts), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise _broken(opened, f"{type(error).__name__}: {error}") from error
    precision = known.get("precision", asked)
    if precision not in PRECISIONS:
        raise _broken(opened, f"precision {precision!r} is none of {', '.join(PRECISIONS)}")
    if precision not in _ALLOWED.get(asked, PRECISIONS):
        raise VerificationError(
            f"segment {opened.id} computes in {precision} on {opened.target}, not in {asked}",
            provider=opened.provider, origin=opened.origin,
            cause="the runtime chose it by itself",
            remedy=f"ask for precision={precision!r} if that is good enough, or leave that target "
            "out",
        )  # fmt: skip
    return known


def _broken(opened: OpenedSegment, cause: str) -> ContractViolation:
    return ContractViolation(
        "an executable's facts() broke the contract", provider=opened.provider,
        origin=opened.origin, cause=cause, remedy="report it to the plugin's author",
    )  # fmt: skip
