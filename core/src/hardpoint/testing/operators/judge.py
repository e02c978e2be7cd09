"""Whether a result is right, within what its precision and dtype allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.interfaces.backend import Precision
from hardpoint.numerics import Difference, compare

# What a precision makes of a number; quantized ones do it in a way of their own.
_ROUNDED: Mapping[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BY_DTYPE: Mapping[torch.dtype, Precision] = {torch.bfloat16: "bf16", torch.float16: "fp16"}
_QUANTIZED = ("int8", "int8w", "int4w")
# Results below this are as good as zero: what they are made of was far larger.
_SMALL = 1e-2


def tolerance(precision: Precision, tensors: Sequence[torch.Tensor]) -> float:
    """The greatest accepted error of a call with these inputs and results, see :func:`difference`.

    The compiler's own limits: of the precision, or of the narrowest dtype that takes part.
    """
    dtypes = {t.dtype for t in tensors}
    taking_part = [precision, *(p for d, p in _BY_DTYPE.items() if d in dtypes)]
    return max(DEFAULT_MAX_ERROR[p] for p in taking_part)


def rounded(tensors: Sequence[torch.Tensor], precision: Precision) -> list[torch.Tensor] | None:
    """``tensors`` as ``precision`` holds them; ``None`` where that is no dtype of its own."""
    narrow = _ROUNDED.get(precision)
    if narrow is None:
        return None
    wide = (torch.float32, torch.float64)
    return [t.to(narrow).to(t.dtype) if t.dtype in wide else t for t in tensors]


def _scaled(found: Difference, want: torch.Tensor) -> Difference:
    """``found`` with its error relative to the reference's greatest magnitude, also where small.

    A whole model's error is absolute below 1; of a softmax over many that would accept anything.
    """
    if not (want.is_floating_point() or want.is_complex()):
        return found
    finite = want.detach().cpu()[torch.isfinite(want.detach().cpu())]
    greatest = float(finite.abs().max()) if finite.numel() else 1.0
    return replace(found, error=found.error * max(1.0, greatest) / max(_SMALL, greatest))


def untold(
    precision: Precision, inputs: Sequence[torch.Tensor], results: Sequence[torch.Tensor]
) -> str:
    """Why nobody can tell these results right from wrong, or ``""`` where one can.

    A quantized precision rounds float inputs in a way of its own: an integer or a truth value that
    is made of them may fall either way, and it holds neither NaN nor infinity.
    """
    if precision not in _QUANTIZED or not any(t.is_floating_point() for t in inputs):
        return ""
    if not all(t.is_floating_point() for t in results):
        return f"integers made of numbers that {precision} rounds may fall either way"
    if not all(torch.isfinite(t).all() for t in results):
        return f"{precision} holds neither NaN nor infinity"
    return ""


def difference(got: torch.Tensor, want: torch.Tensor) -> Difference:
    """How far a result is off, relative to its greatest magnitude.

    Exact for integers and bools, NaN and infinities in the same places.
    """
    return _scaled(compare(got, want), want)


def wrong(
    got: Sequence[torch.Tensor],
    references: Sequence[Sequence[torch.Tensor]],
    limit: float,
) -> str:
    """What is wrong with the results, or ``""``.

    :param references: eager's results; and, for a precision narrower than the program, those that
        eager gives for inputs so rounded: of a step such as ``floor`` either is right.
    """
    best, words = float("inf"), ""
    for want in references:
        differences = [difference(g, w) for g, w in zip(got, want, strict=True)]
        if all(d.error <= limit for d in differences):
            return ""
        worst = max(range(len(differences)), key=lambda i: differences[i].error)
        if not words or differences[worst].error < best:
            best = differences[worst].error
            words = _words(worst, differences[worst], got[worst], want[worst], limit)
    return words


def _words(
    which: int, found: Difference, got: torch.Tensor, want: torch.Tensor, limit: float
) -> str:
    place, got, want = f"result {which}", got.detach().cpu(), want.detach().cpu()
    if got.is_floating_point() and not torch.equal(torch.isfinite(got), torch.isfinite(want)):
        kept = "NaN or infinity where eager PyTorch has none"
        if (~torch.isfinite(want) & torch.isfinite(got)).any():
            kept = "a number where eager PyTorch has NaN or infinity"
        return f"{place}: {kept}"
    if not (got.is_floating_point() or got.is_complex()):
        off = int((got != want).sum())
        return f"{place}: {off} of {got.numel()} {_name(got)} values differ, and they are exact"
    error = "NaN or infinity differ" if found.error == float("inf") else f"error {found.error:.3g}"
    return f"{place}: {error}, at most {limit:.3g} is allowed for {_name(got)}"


def _name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
