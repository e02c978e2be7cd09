"""How far two tensors are apart: bits first, then values, a piece of each at a time."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardpoint.storage.memory import address_of

if TYPE_CHECKING:
    import torch

# Bytes of which the bits are compared at once: bounds how late the bar moves.
_BITS_AT_ONCE = 64 << 20
# Elements whose values are compared at once. What is computed of them stays in the processor's
# caches; and PyTorch uses one thread for so few, where several cost more than they give (a barrier
# after each step).
_VALUES_AT_ONCE = 1 << 14
_FAR = float(1 << 62)


@dataclass(slots=True)
class Distance:
    """What is known of two tensors of one shape.

    :ivar identical: same dtype, same bytes.
    :ivar differing: elements whose values differ. NaN is equal to NaN, and 0.0 to -0.0.
    :ivar beyond: those of them that differ by more than the tolerance, or are not finite.
    :ivar not_finite: those of them where no error can be told: NaN or infinity, on one side.
    :ivar max_abs: the largest absolute error of the others.
    :ivar max_rel: the largest relative one: of the larger magnitude, so that 2.0 is the most.
    :ivar worst: where in the flat tensor ``max_abs`` is; the first that is not finite before all.
    :ivar opaque: PyTorch cannot compute with the dtype; ``differing`` counts its bytes then.
    """

    identical: bool
    differing: int = 0
    beyond: int = 0
    not_finite: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    worst: int | None = None
    opaque: bool = False


def distance(
    a: torch.Tensor,
    b: torch.Tensor,
    tolerance: float = 0.0,
    tick: Callable[[int], None] | None = None,
) -> Distance:
    """Compare two tensors of one shape; dtypes may differ.

    :param tolerance: an element is beyond it whose absolute and relative errors are both larger.
    :param tick: told of each piece's bytes in ``a``.
    """
    a, b = _flat(a), _flat(b)
    found = Distance(a.dtype == b.dtype, opaque=_is_opaque(a.dtype) or _is_opaque(b.dtype))
    size = max(1, _BITS_AT_ONCE // a.element_size())
    for at in range(0, a.numel(), size):
        one, other = a[at : at + size], b[at : at + size]
        if a.dtype != b.dtype or not _same_bytes(one, other):
            found.identical = False
            for inner in range(0, one.numel(), _VALUES_AT_ONCE):
                end = inner + _VALUES_AT_ONCE
                pieces = one[inner:end], other[inner:end]
                if a.dtype != b.dtype or not _same_bytes(*pieces):
                    _add(found, *pieces, at + inner, tolerance)
        if tick is not None:
            tick(one.numel() * one.element_size())
    return found


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in order; a copy only of what is not plain memory in that order."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().view(-1)


def _same_bytes(a: torch.Tensor, b: torch.Tensor) -> bool:
    # Six times as fast as torch.equal of bytes, and it stops at the first that differs.
    compare = ctypes.CDLL(None).memcmp
    compare.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    same: bool = compare(address_of(a), address_of(b), a.numel() * a.element_size()) == 0
    return same


def _add(found: Distance, a: torch.Tensor, b: torch.Tensor, at: int, tolerance: float) -> None:
    """Add what two pieces that begin at element ``at`` tell."""
    import torch

    if found.opaque:
        count = (
            int((a.view(torch.uint8) != b.view(torch.uint8)).sum())
            if (a.dtype == b.dtype)
            else a.numel()
        )
        found.differing += count
        found.beyond += count
        return
    errors, larger, strange = (
        _whole_errors(a, b) if _is_whole(a.dtype) and _is_whole(b.dtype) else _errors(a, b)
    )
    if strange is not None:
        if not found.not_finite:
            found.worst = at + int(strange.to(torch.uint8).argmax())
        not_finite = int(strange.sum())
        found.not_finite += not_finite
        found.differing += not_finite
        found.beyond += not_finite
        errors.masked_fill_(strange, 0)
    largest = float(errors.max())
    if largest == 0:
        return
    differing = int(errors.count_nonzero())
    found.differing += differing
    relative = errors / larger.masked_fill_(errors == 0, 1)
    if tolerance:
        differing = int(((errors > tolerance) & (relative > tolerance)).sum())
    found.beyond += differing
    if largest > found.max_abs:
        found.max_abs = largest
        if not found.not_finite:
            found.worst = at + int(errors.argmax())
    found.max_rel = max(found.max_rel, float(relative.max()))


# Errors, 0 only where values are equal; the larger magnitude; what has no error, if anything has.
_Errors = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor | None"]


def _errors(a: torch.Tensor, b: torch.Tensor) -> _Errors:
    import torch

    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    one, other = a.to(wide), b.to(wide)
    errors, strange = (one - other).abs(), None
    if not math.isfinite(float(errors.max())):
        # The difference of two finite numbers may be too large for float64: it is no infinity.
        overflown = one.isfinite() & other.isfinite() & ~errors.isfinite()
        equal = (one == other) | (one.isnan() & other.isnan())
        errors.masked_fill_(overflown, torch.finfo(torch.float64).max).masked_fill_(equal, 0)
        strange = ~errors.isfinite()
        strange = strange if bool(strange.any()) else None
    return errors, torch.maximum(one.abs(), other.abs()), strange


def _whole_errors(a: torch.Tensor, b: torch.Tensor) -> _Errors:
    """As :func:`_errors`, of whole numbers: float64 cannot tell large ones apart."""
    import torch

    one, other = _as_int64(a), _as_int64(b)
    first, second = a.to(torch.float64), b.to(torch.float64)
    errors = (first - second).abs()
    exact = (one - other).abs().to(torch.float64)  # int64 wraps round, and is right for small ones
    errors = torch.where(errors < _FAR, exact, errors)
    return errors, torch.maximum(first.abs(), second.abs()), None


def _as_int64(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.view(torch.int64) if tensor.dtype is torch.uint64 else tensor.to(torch.int64)


def _is_whole(dtype: torch.dtype) -> bool:
    return not dtype.is_floating_point and not dtype.is_complex


def _is_opaque(dtype: torch.dtype) -> bool:
    """Whether PyTorch cannot give its values: several in one element, and the like."""
    import torch

    try:
        torch.empty(1, dtype=dtype).to(torch.complex128 if dtype.is_complex else torch.float64)
    except (RuntimeError, NotImplementedError):
        return True
    return False


def coordinates(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Where the element ``flat`` of a tensor of this shape is."""
    found = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        found.append(place)
    return tuple(reversed(found))
