"""What each computing opcode does to numbers: numpy on arrays, rounded as the chip rounds.

fp16 is widened to fp32, computed, and rounded once; sums of products are kept in fp32, those of
int8 in int32. Nothing saturates in fp16: what is too large becomes infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from hardpoint_contrib_simnpu.isa import window_output
from hardpoint_contrib_simnpu.memory import Array

Numbers = Sequence[Any]
Kernel = Callable[[Sequence[Array], Numbers], Array]
_Meeting = tuple[tuple[int, int], tuple[slice, ...], tuple[slice, ...]]
_ALL = slice(None)


def _wide(array: Array) -> Array:
    return array.astype(np.float32, copy=False)


def erf(x: Array) -> Array:
    """The error function to 2e-7, which fp16 cannot see.

    Abramowitz and Stegun, Handbook of Mathematical Functions, formula 7.1.26.
    """
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    found: Array = np.copysign(1 - series * np.exp(-x * x), x)
    return found


def _gelu(ins: Sequence[Array], _: Numbers) -> Array:
    x = _wide(ins[0])
    found: Array = x * np.float32(0.5) * (1 + erf(x * np.float32(math.sqrt(0.5))))
    return found


def _gelu_tanh(ins: Sequence[Array], _: Numbers) -> Array:
    x = _wide(ins[0])
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    found: Array = x * np.float32(0.5) * (1 + np.tanh(inner))
    return found


def _softmax(ins: Sequence[Array], _: Numbers) -> Array:
    x = _wide(ins[0])
    powers: Array = np.exp(x - x.max(-1, keepdims=True))
    powers /= powers.sum(-1, keepdims=True)
    return powers


def _quantize(ins: Sequence[Array], numbers: Numbers) -> Array:
    steps = np.rint(_wide(ins[0]) / np.float32(numbers[0]))
    whole: Array = np.nan_to_num(np.clip(steps, -127, 127), nan=0.0).astype(np.int8)
    return whole


def _matmul(ins: Sequence[Array], _: Numbers) -> Array:
    sums: Array = _wide(ins[0]) @ _wide(ins[1]).T
    if len(ins) == 3:
        sums += _wide(ins[2])
    return sums


def _matmul8(ins: Sequence[Array], numbers: Numbers) -> Array:
    # float64 holds every int32 sum exactly, and numpy multiplies it much faster than integers.
    sums = ins[0].astype(np.float64) @ ins[1].astype(np.float64).T
    scaled: Array = _wide(sums) * (ins[2] * np.float32(numbers[-1]))
    if len(ins) == 4:
        scaled += _wide(ins[3])
    return scaled


def _conv(ins: Sequence[Array], numbers: Numbers) -> Array:
    sums = _slide(_wide(ins[0]), _wide(ins[1]), numbers)
    if len(ins) == 3:
        sums += _wide(ins[2])[:, None, None]
    return sums


def _conv8(ins: Sequence[Array], numbers: Numbers) -> Array:
    sums = _wide(_slide(ins[0].astype(np.float64), ins[1].astype(np.float64), numbers))
    scaled: Array = sums * (ins[2] * np.float32(numbers[-1]))[:, None, None]
    if len(ins) == 4:
        scaled += _wide(ins[3])[:, None, None]
    return scaled


def _slide(x: Array, w: Array, numbers: Numbers) -> Array:
    """Convolution: one product of matrices for each position in the window."""
    height, width = window_output(x.shape[1:], w.shape[2:], numbers)
    sums = np.zeros((w.shape[0], height, width), x.dtype)
    for (i, j), inside, outside in _meetings(x.shape[1:], w.shape[2:], (height, width), numbers):
        sums[outside] += np.tensordot(w[:, :, i, j], x[inside], axes=1)
    return sums


def _maxpool(ins: Sequence[Array], numbers: Numbers) -> Array:
    x, kernel, rest = ins[0], numbers[:2], numbers[2:]
    height, width = window_output(x.shape[1:], kernel, rest)
    best = np.full((x.shape[0], height, width), -np.inf, x.dtype)
    for _, inside, outside in _meetings(x.shape[1:], kernel, (height, width), rest):
        best[outside] = np.maximum(best[outside], x[inside])
    return best


def _meetings(
    image: Sequence[int], kernel: Sequence[int], result: Sequence[int], numbers: Numbers
) -> Iterator[_Meeting]:
    """Every position in the window, with the part of the image (all channels) that it reads and
    the part of the result that this goes to. Padding is never read.
    """
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            rows = _meet(i, image[0], result[0], numbers[0::2])
            columns = _meet(j, image[1], result[1], numbers[1::2])
            if rows is not None and columns is not None:
                yield (i, j), (_ALL, rows[0], columns[0]), (_ALL, rows[1], columns[1])


def _meet(position: int, size: int, results: int, numbers: Numbers) -> tuple[slice, slice] | None:
    """Along one axis: which elements ``position`` of the window reads, for which results."""
    stride, padding, dilation = numbers[:3]
    offset = position * dilation - padding  # result r reads element r * stride + offset
    first = max(0, -(offset // stride))  # the least r with r * stride + offset >= 0
    last = min(results - 1, (size - 1 - offset) // stride)
    if last < first:
        return None
    start = first * stride + offset
    return (
        slice(start, (last * stride + offset) + 1, stride),
        slice(first, last + 1),
    )


KERNELS: Mapping[str, Kernel] = {
    "ADD": lambda ins, _: _wide(ins[0]) + _wide(ins[1]),
    "SUB": lambda ins, _: _wide(ins[0]) - _wide(ins[1]),
    "MUL": lambda ins, _: _wide(ins[0]) * _wide(ins[1]),
    "ADDI": lambda ins, numbers: _wide(ins[0]) + np.float32(numbers[0]),
    "MULI": lambda ins, numbers: _wide(ins[0]) * np.float32(numbers[0]),
    "RELU": lambda ins, _: np.maximum(ins[0], np.float16(0)),
    "GELU": _gelu,
    "GELUT": _gelu_tanh,
    "SOFTMAX": _softmax,
    "QUANT": _quantize,
    "MATMUL": _matmul,
    "MATMUL8": _matmul8,
    "CONV2D": _conv,
    "CONV2D8": _conv8,
    "MAXPOOL": _maxpool,
}
