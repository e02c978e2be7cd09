"""How far two tensors are apart. PyTorch is imported when tensors are compared."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Difference:
    """How far a tensor is from its reference.

    :param error: greatest absolute difference, divided by the reference's greatest magnitude where
        that is above 1; infinite where NaN, infinities or exact (integer, bool) values differ.
    :param mean: mean absolute difference. :param cosine: of the flattened tensors (1 is equal).
    :param relative: greatest absolute difference, divided by the reference's greatest magnitude; 0
        where that is below :data:`NOISE`.
    """

    error: float
    mean: float
    cosine: float
    relative: float = 0.0

    def hidden(self, limit: float) -> bool:
        """Whether it is accepted for its small size alone: see :data:`HIDDEN`."""
        return self.error <= limit and is_hidden(self.relative, limit)

    def to_json(self) -> dict[str, object]:
        """JSON-serializable: see :func:`json_number`."""
        return {name: json_number(value) for name, value in asdict(self).items()}


def json_number(value: float) -> float | str:
    """``value`` as JSON can hold it: ``"inf"`` or ``"nan"`` where it is not finite."""
    return value if math.isfinite(value) else str(value)


EQUAL = Difference(0.0, 0.0, 1.0)
DIFFERENT = Difference(math.inf, math.inf, 0.0, math.inf)

# An error is absolute where the reference stays below 1: of a softmax over 50,000 classes, whose
# values are about 2e-5, zeros are within 1e-4. An error above this share of the greatest value is
# told of there; below NOISE, values are what rounding in float32 leaves of a difference.
HIDDEN = 0.5
NOISE = 1e-6


def is_hidden(relative: float, limit: float) -> bool:
    """Whether an error that is within ``limit`` leaves little of the results themselves."""
    return relative > max(HIDDEN, limit)


def compare(value: torch.Tensor, reference: torch.Tensor) -> Difference:
    """The difference of two tensors of one shape and dtype, computed in float64."""
    import torch

    if value.shape != reference.shape or value.dtype != reference.dtype:
        return DIFFERENT
    if value.numel() == 0:
        return EQUAL
    value, reference = value.detach().cpu(), reference.detach().cpu()
    if not (value.is_floating_point() or value.is_complex()):
        return EQUAL if torch.equal(value, reference) else DIFFERENT
    wide = torch.complex128 if value.is_complex() else torch.float64
    a, b = value.to(wide).flatten(), reference.to(wide).flatten()
    finite = torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), finite):
        return DIFFERENT
    odd_a, odd_b = a[~finite], b[~finite]
    if not torch.equal(torch.isnan(odd_a), torch.isnan(odd_b)) or not torch.equal(
        odd_a[~torch.isnan(odd_a)], odd_b[~torch.isnan(odd_b)]
    ):
        return DIFFERENT
    a, b = a[finite], b[finite]
    if a.numel() == 0:
        return EQUAL
    gap = (a - b).abs()
    norms = float(a.norm() * b.norm())
    cosine = float(torch.dot(a.conj(), b).real) / norms if norms else float(torch.equal(a, b))
    cosine = max(-1.0, min(1.0, cosine))  # rounding leaves it a little outside
    most, scale = float(gap.max()), float(b.abs().max())
    relative = most / scale if scale > NOISE else 0.0
    return Difference(most / max(1.0, scale), float(gap.mean()), cosine, relative)
