"""What ranks contribute, and what must come of it by arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch

DTYPES = (
    "bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64",
    "complex32", "complex64", "complex128",
)  # fmt: skip
REDUCTIONS = ("SUM", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "AVG")

_BITWISE = ("BAND", "BOR", "BXOR")
_RANDOM_LIMIT = 1 << 20  # elements; random bits of more take longer than moving them
_PERIOD = 44  # elements after which numbers repeat

_FOLDS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "SUM": torch.add,
    "AVG": torch.add,
    "PRODUCT": torch.mul,
    "MIN": torch.minimum,
    "MAX": torch.maximum,
    "BAND": torch.bitwise_and,
    "BOR": torch.bitwise_or,
    "BXOR": torch.bitwise_xor,
}


def dtype_named(name: str) -> torch.dtype:
    """``"float32"`` as PyTorch's dtype."""
    found: torch.dtype = getattr(torch, name)
    return found


def has_meaning(op: str, dtype: torch.dtype) -> bool:
    """Whether the reduction is defined for numbers of this kind."""
    if dtype == torch.bool:
        return op in ("MIN", "MAX", *_BITWISE)
    if dtype.is_complex:
        return op in ("SUM", "AVG")
    return op not in (_BITWISE if dtype.is_floating_point else ("AVG",))


def numbers(rank: int, part: int, count: int, dtype: torch.dtype, op: str) -> torch.Tensor:
    """Numbers to reduce: different for each rank and part, and exact in every dtype.

    Quarters where there are fractions: who computes in integers is found out. What a few ranks make
    of them needs no rounding in ``bfloat16``, whatever the order.
    """
    steps = torch.arange(_PERIOD) * 7 + rank * 5 + part * 3
    signed = dtype.is_floating_point or dtype.is_complex or dtype.is_signed
    if op == "PRODUCT":
        fractions = dtype.is_floating_point
        choice = [0.5, -1.0, 2.0, 1.5] if fractions else [1, -2, 3, -1] if signed else [1, 2, 3, 1]
        made = torch.tensor(choice)[steps % 4]
    else:
        made = steps % 11 - (5 if signed else 0)
        if dtype.is_floating_point or dtype.is_complex:
            made = made / 4
        if dtype.is_complex:
            made = torch.complex(made, made.flip(0) / 2)
    made = (made % 2 == 0) if dtype == torch.bool else made.to(dtype)
    return made.repeat(-(-count // _PERIOD))[:count]


def bits(rank: int, part: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Any bits to move: NaNs, negative zeros, the largest and the smallest are among them."""
    if count > _RANDOM_LIMIT:
        return numbers(rank, part, count, dtype, "")
    generator = torch.Generator().manual_seed(1_000_003 * rank + 1_009 * part + count)
    if dtype == torch.bool:
        return torch.randint(0, 2, (count,), generator=generator).to(torch.bool)
    raw = torch.randint(0, 256, (count * dtype.itemsize,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype)


def folded(op: str, parts: list[torch.Tensor]) -> torch.Tensor:
    """The reduction of all ranks' parts, computed in a wide type and rounded once."""
    dtype = parts[0].dtype
    if dtype.is_complex:
        wide = torch.complex128
    elif dtype.is_floating_point:
        wide = dtype if dtype.itemsize >= 4 else torch.float32
    else:
        wide = torch.int64
    total = reduce(_FOLDS[op], [part.to(wide) for part in parts])
    return (total / len(parts) if op == "AVG" else total).to(dtype)


def difference(got: torch.Tensor, want: torch.Tensor, *, near: bool) -> str:
    """How ``got`` differs from ``want``, in words; ``""`` where it does not.

    :param near: rounding in another order is no difference; else every bit counts.
    """
    got = got.detach().cpu()
    if (got.dtype, got.shape) != (want.dtype, want.shape):
        return f"got {_kind(got)}, expected {_kind(want)}"
    width = want.dtype.itemsize
    raw = [tensor.contiguous().view(torch.uint8).reshape(-1, width) for tensor in (got, want)]
    if torch.equal(raw[0], raw[1]):
        return ""
    if near:
        tolerance = 4 * torch.finfo(want.dtype).eps
        wide = torch.complex128 if want.dtype.is_complex else torch.float64
        apart = ~torch.isclose(got.to(wide), want.to(wide), rtol=tolerance, atol=tolerance)
    else:
        apart = (raw[0] != raw[1]).any(1).view(want.shape)
    if not apart.any():
        return ""
    places = apart.flatten().nonzero().flatten()
    first = int(places[0])
    one, other = got.flatten()[first].item(), want.flatten()[first].item()
    return (
        f"element {first} of {want.numel()} is {one!r}, expected {other!r}"
        f" ({len(places)} {'differs' if len(places) == 1 else 'differ'})"
    )


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype)[6:]} of shape {tuple(tensor.shape)}"
