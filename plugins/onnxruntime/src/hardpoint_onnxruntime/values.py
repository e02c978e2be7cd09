"""What single nodes are tried on: ordinary numbers, lost numbers, large integers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import sympy
import torch
from torch.fx import Node

# Elements of one node's tensors that a trial makes and computes; what is larger is only opened.
MOST = 2**25
_UNKNOWN = sympy.Integer(4)  # a size of which a file tells no example
NAN, INFINITIES = (float("nan"),), (float("inf"), -float("inf"))
LARGE = (2**31 + 5, -(2**33) + 1, -7, 7, 2**53 + 1, 2**31 - 1, -1, 123_456_789_012)
# What float64 cannot hold, and then nothing that could make up for it in a sum.
LONELY = (2**53 + 1, 8, -16, 24, 0, -8, 32, 16)
SMALL, TURNED = (4, 3, 2, -2, 1, 5, -1, 7), (*LARGE[3:], *LARGE[:3])


def shape_of(value: torch.Tensor) -> tuple[int, ...]:
    """Its sizes, dynamic ones as in the example that it was captured with."""
    return tuple(_number(size) for size in value.shape)


def _number(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    known = size.node.shape_env.backed_var_to_val
    expression = size.node.expr
    return int(expression.xreplace({s: known.get(s, _UNKNOWN) for s in expression.free_symbols}))


def too_large(sources: Sequence[Node], results: Sequence[Node]) -> bool:
    """Whether computing it once would take seconds, or more memory than there may be."""
    sizes = [shape_of(n.meta["val"]) for n in (*sources, *results)]
    return sum(map(math.prod, sizes)) > MOST


def _floats(shape: tuple[int, ...], dtype: torch.dtype, at: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(at)
    return torch.randn(shape, generator=generator).to(dtype)


def _integers(kind: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Integers that may be indices: each once; few; none but 0; none but 1."""
    count = torch.arange(math.prod(shape)).reshape(shape)
    if kind == 1:
        count = count % 3
    if kind >= 2:
        count = torch.full(shape, kind - 2)
    greatest = torch.iinfo(dtype).max
    return (count % min(greatest, 2**40)).to(dtype)


INTEGER_KINDS = 4


def ordinary(values: Sequence[torch.Tensor], kind: int) -> Iterator[torch.Tensor]:
    """Normal floats (kind 1: from 0 to 1), booleans of both sorts, integers of one of the kinds."""
    for at, value in enumerate(values):
        shape = shape_of(value)
        if value.dtype is torch.bool:
            yield _floats(shape, torch.float32, at) > 0
        elif value.dtype.is_floating_point:
            made = _floats(shape, value.dtype, at)
            yield made.sigmoid() if kind == 1 else made
        else:
            yield _integers(kind, shape, value.dtype)


def special(values: Sequence[torch.Tensor], numbers: Sequence[float]) -> list[torch.Tensor] | None:
    """``values`` with ``numbers`` here and there; ``None`` where there are no floats."""
    changed, found = [], False
    for value in values:
        if value.dtype.is_floating_point and value.numel():
            value = value.clone()
            flat = value.view(-1)
            for i, number in enumerate(numbers):
                flat[(i * flat.numel()) // len(numbers) + int(flat.numel() > 6)] = number
            found = True
        changed.append(value)
    return changed if found else None


def large(
    values: Sequence[torch.Tensor], numbers: Sequence[int], others: Sequence[int]
) -> list[torch.Tensor] | None:
    """``values`` with integers of any size and sign; ``None`` where there are no integers.

    :param numbers: what stands in the first of them, the third...; from its begin, over and over.
    :param others: what stands in the second, opposite the large ones.
    """
    changed, found = [], 0
    for value in values:
        if not (value.dtype.is_floating_point or value.dtype is torch.bool) and value.numel():
            row = torch.tensor(others if found % 2 else numbers)
            repeated = row.repeat(-(-value.numel() // len(row)))[: value.numel()]
            value = repeated.reshape(value.shape).to(value.dtype)
            found += 1
        changed.append(value)
    return changed if found else None


def zeros(value: torch.Tensor) -> torch.Tensor:
    """A real tensor with the sizes of ``value``."""
    return torch.zeros(shape_of(value), dtype=value.dtype)
