"""Rules for the matrix unit: products of matrices, convolution; and pooling, which tiles alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import torch
from torch.fx import Node

from hardpoint_contrib_simnpu.chip import ALIGNMENT, MAX_PRODUCTS, SCRATCHPAD
from hardpoint_contrib_simnpu.emitter import Value, broadcast, permuted, reshaped, window
from hardpoint_contrib_simnpu.isa import WIDTH, Region, window_output
from hardpoint_contrib_simnpu.lowering import Call, Lowering, Rule
from hardpoint_contrib_simnpu.origin import RefusedError

_aten = torch.ops.aten


def _multiply(
    low: Lowering,
    a: Region,
    b: Region,
    extras: Sequence[Region],
    out: Region,
    numbers: Sequence[float] = (),
) -> None:
    """``out[M, N] = a[M, K] @ b[N, K].T``, in tiles of whole rows; rows of ``b`` stay longest.

    :param extras: scales and bias, ``[N]`` each.
    """
    (m, k), n = a.shape, b.shape[0]
    _check_sums(k)
    emitter, row = low.emitter, k * WIDTH[a.dtype]
    kept = row + sum(WIDTH[e.dtype] for e in extras)
    columns = max(1, min(n, SCRATCHPAD // 2 // kept))
    free = SCRATCHPAD - columns * kept - ALIGNMENT * (len(extras) + 3)
    rows = max(1, min(m, free // (row + 2 * columns)))
    op = "MATMUL" if a.dtype == "f16" else "MATMUL8"
    for first in range(0, n, columns):
        width = min(columns, n - first)
        outer = emitter.mark()
        weights = emitter.load(window(b, (first, 0), (width, k)))
        others = [emitter.load(window(e, (first,), (width,))) for e in extras]
        for top in range(0, m, rows):
            height = min(rows, m - top)
            inner = emitter.mark()
            tile = emitter.load(window(a, (top, 0), (height, k)))
            result = emitter.emit(
                op, emitter.tile((height, width)), tile, weights, *others, numbers=numbers
            )
            emitter.emit("STORE", window(out, (top, first), (height, width)), result)
            emitter.release(inner)
        emitter.release(outer)


def _check_sums(products: int) -> None:
    if products > MAX_PRODUCTS:
        raise RefusedError(f"it sums {products:,} products, the accumulators hold {MAX_PRODUCTS:,}")


def _product(
    low: Lowering, call: Call, x: Node, weight: Node, bias: Node | None, *, turned: bool
) -> Value:
    """``x[..., K]`` times a matrix ``[N, K]``, or ``[K, N]`` where ``turned``; in int8 if asked."""
    made = low.emitter.new(call.shape)
    extras = [] if bias is None else [low.region(bias)]
    scale = low.scale(call, x, weight)
    k = low.values[x].shape[-1]
    out = low.emitter.region(made)
    if scale is None:
        matrix = low.region(weight)
        b = permuted(matrix, (1, 0)) if turned else matrix
        a = _rows(low.region(x), k)
        _multiply(low, a, b, extras, _rows(out, b.shape[0]))
        return made
    constant = low.values[weight].constant
    assert constant is not None
    b, scales = low.quantized_weight(constant.T if turned else constant)
    a = low.quantized(x, scale)
    _multiply(low, _rows(a, k), b, [scales, *extras], _rows(out, b.shape[0]), (scale,))
    low.release(a)
    return made


def _rows(region: Region, length: int) -> Region:
    return reshaped(region, (region.elements // length, length))


def _linear(low: Lowering, call: Call) -> Value:
    weight = call.tensor("weight")
    if len(low.values[weight].shape) != 2:
        raise RefusedError("its weight is no matrix")
    return _product(low, call, call.tensor("input"), weight, call.arguments["bias"], turned=False)


def _mm(low: Lowering, call: Call) -> Value:
    return _product(low, call, call.tensor("self"), call.tensor("mat2"), None, turned=True)


def _addmm(low: Lowering, call: Call) -> Value:
    bias, other = call.tensor("self"), call.tensor("mat2")
    if call.arguments["beta"] != 1 or call.arguments["alpha"] != 1:
        raise RefusedError("alpha or beta is not 1")
    if low.values[bias].shape != call.shape[-1:]:
        raise RefusedError(
            f"what it adds has the sizes {list(low.values[bias].shape)}; the matrix unit adds one "
            "number for each column"
        )
    return _product(low, call, call.tensor("mat1"), other, bias, turned=True)


def _matmul(low: Lowering, call: Call) -> Value:
    a = call.tensor("self")
    b = call.tensor("mat2" if "mat2" in call.arguments else "other")
    left, right = low.values[a].shape, low.values[b].shape
    if len(left) < 2 or len(right) < 2:
        raise RefusedError("an operand is a vector; the matrix unit takes matrices")
    if len(right) == 2:
        return _product(low, call, a, b, None, turned=True)
    made, batch = low.emitter.new(call.shape), call.shape[:-2]
    out = low.emitter.region(made)
    first = broadcast(low.region(a), (*batch, *left[-2:]))
    second = broadcast(low.region(b), (*batch, *right[-2:]))
    for index in product(*map(range, batch)):
        matrices = [_matrix(view, index) for view in (first, second, out)]
        _multiply(low, matrices[0], permuted(matrices[1], (1, 0)), [], matrices[2])
    return made


def _matrix(view: Region, index: Sequence[int]) -> Region:
    """The last two dimensions of ``view`` at ``index`` of the others."""
    sizes = (*(1 for _ in index), *view.shape[-2:])
    block = window(view, (*index, 0, 0), sizes)
    return replace(block, shape=block.shape[-2:], strides=block.strides[-2:])


def _conv2d(low: Lowering, call: Call) -> Value:
    arguments, x, weight = call.arguments, call.tensor("input"), call.tensor("weight")
    numbers: tuple[float, ...] = _numbers(
        *(arguments[name] for name in ("stride", "padding", "dilation"))
    )
    groups, kernel = arguments["groups"], low.values[weight].shape
    _check_sums(math.prod(kernel[1:]))
    made = low.emitter.new(call.shape)
    scale, bias = low.scale(call, x, weight), arguments["bias"]
    extras = [] if bias is None else [low.region(bias)]
    if scale is None:
        image, filters = low.region(x), low.region(weight)
    else:
        constant = low.values[weight].constant
        assert constant is not None
        filters, scales = low.quantized_weight(constant)
        image, extras = low.quantized(x, scale), [scales, *extras]
        numbers = (*numbers, scale)
    # Without a batch dimension: a batch of one.
    count = image.elements // math.prod(image.shape[-3:])
    images = reshaped(image, (count, *image.shape[-3:]))
    out = reshaped(low.emitter.region(made), (count, *call.shape[-3:]))
    for index, group in product(range(count), range(groups)):
        _convolve(low, (images, filters, extras, out), index, (group, groups), numbers)
    if scale is not None:
        low.release(image)
    return made


def _convolve(
    low: Lowering,
    operands: tuple[Region, Region, Sequence[Region], Region],
    index: int,
    group: tuple[int, int],
    numbers: Sequence[float],
) -> None:
    """One image and one group of channels: the image stays, filters pass by in blocks."""
    images, filters, extras, out = operands
    count, size = filters.shape[0] // group[1], filters.shape[1:]
    emitter, outer = low.emitter, low.emitter.mark()
    source = (1, size[0], *images.shape[2:])
    loaded = emitter.load(window(images, (index, group[0] * size[0], 0, 0), source))
    tile = reshaped(loaded, source[1:])
    per_filter = math.prod(size) * WIDTH[filters.dtype] + sum(WIDTH[e.dtype] for e in extras)
    per_filter += 2 * math.prod(out.shape[2:])
    free = SCRATCHPAD - emitter.mark() - ALIGNMENT * (len(extras) + 2)
    step = max(1, min(count, free // per_filter))
    for start in range(0, count, step):
        first, channels = group[0] * count + start, min(step, count - start)
        inner = emitter.mark()
        weights = emitter.load(window(filters, (first, 0, 0, 0), (channels, *size)))
        others = [emitter.load(window(e, (first,), (channels,))) for e in extras]
        result = emitter.emit(
            "CONV2D" if filters.dtype == "f16" else "CONV2D8",
            emitter.tile((channels, *out.shape[2:])), tile, weights, *others, numbers=numbers,
        )  # fmt: skip
        place = window(out, (index, first, 0, 0), (1, channels, *out.shape[2:]))
        emitter.emit(
            "STORE", replace(place, shape=place.shape[1:], strides=place.strides[1:]), result
        )
        emitter.release(inner)
    emitter.release(outer)


def _maxpool(low: Lowering, call: Call) -> Value:
    arguments = call.arguments
    if arguments["ceil_mode"]:
        raise RefusedError("ceil_mode is on")
    kernel = arguments["kernel_size"]
    stride = arguments["stride"] or kernel
    rest = _numbers(stride, arguments["padding"], arguments["dilation"])
    numbers = (*_pair(kernel), *rest)
    view, made = low.region(call.tensor("self")), low.emitter.new(call.shape)
    planes = reshaped(view, (view.elements // math.prod(view.shape[-2:]), *view.shape[-2:]))
    count, emitter = planes.shape[0], low.emitter
    out = reshaped(emitter.region(made), (count, *window_output(planes.shape[1:], numbers, rest)))
    plane = 2 * (math.prod(planes.shape[1:]) + math.prod(out.shape[1:]))
    step = max(1, min(count, (SCRATCHPAD - 2 * ALIGNMENT) // plane))
    for first in range(0, count, step):
        channels = min(step, count - first)
        mark = emitter.mark()
        tile = emitter.load(window(planes, (first, 0, 0), (channels, *planes.shape[1:])))
        result = emitter.emit(
            "MAXPOOL", emitter.tile((channels, *out.shape[1:])), tile, numbers=numbers
        )
        emitter.emit("STORE", window(out, (first, 0, 0), result.shape), result)
        emitter.release(mark)
    return made


def _numbers(*pairs: Sequence[int]) -> tuple[int, ...]:
    """Stride, padding and dilation for the instruction."""
    return tuple(number for pair in pairs for number in _pair(pair))


def _pair(value: Sequence[int]) -> tuple[int, int]:
    pair = tuple(value) * 2 if len(value) == 1 else tuple(value)
    if len(pair) != 2 or not all(0 <= number <= 255 for number in pair):
        raise RefusedError(f"{list(value)} are no two numbers from 0 to 255")
    return pair[0], pair[1]


RULES: dict[object, Rule] = {
    _aten.linear.default: _linear,
    _aten.addmm.default: _addmm,
    _aten.mm.default: _mm,
    _aten.bmm.default: _matmul,
    _aten.matmul.default: _matmul,
    _aten.conv2d.default: _conv2d,
    _aten.max_pool2d.default: _maxpool,
}
