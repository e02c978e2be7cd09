"""The instruction set ``simnpu/1``: what an instruction is, and which ones are well formed.

An instruction takes tensors (*regions* of a memory), gives one, and has a few numbers of its own.
There are four memories: ``host`` (the caller's tensors), ``const`` (weights, in the device's DRAM,
read only), ``dram`` (the rest of it, for one call) and ``pad`` (the scratchpad). Only the copy
instructions reach out of the scratchpad::

    COPY_IN   dram <- host    converts to fp16 on the way
    LOAD      pad  <- dram    any strides: this is how tensors are cut, turned and broadcast
    STORE     dram <- pad
    COPY_OUT  host <- dram    converts to the output's dtype
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hardpoint_contrib_simnpu.chip import ALIGNMENT, MAX_PRODUCTS, MAX_RANK

FORMAT = "simnpu/1"
WIDTH = {"f32": 4, "f16": 2, "i8": 1}  # bytes of an element
SPACES = ("host", "const", "dram", "pad")


@dataclass(frozen=True, slots=True)
class Region:
    """A tensor in a memory.

    :param space: ``host const dram pad``.
    :param address: of its first element, in bytes; in ``host``: the number of the input or output.
    :param dtype: ``f16``, ``i8``, or ``f32`` (host tensors, and scales).
    :param strides: in elements; 0 repeats the same element.
    """

    space: str
    address: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many elements it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements."""
        return self.elements * WIDTH[self.dtype]

    @property
    def end(self) -> int:
        """The first byte after all that it touches."""
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return self.address + (last + 1) * WIDTH[self.dtype]

    @property
    def contiguous(self) -> bool:
        """Whether its elements lie one after the other."""
        return self.strides == contiguous_strides(self.shape)


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a tensor whose elements lie one after the other."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def dense(space: str, address: int, dtype: str, shape: Sequence[int]) -> Region:
    """A contiguous region."""
    return Region(space, address, dtype, tuple(shape), contiguous_strides(shape))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    :param numbers: its own numbers, in the order of :attr:`OpSpec.numbers`.
    """

    op: str
    out: Region
    ins: tuple[Region, ...]
    numbers: tuple[int | float, ...] = ()


# Says what is wrong with an instruction's shapes.
ShapeRule = Callable[[Instruction], str | None]


@dataclass(frozen=True, slots=True)
class OpSpec:
    """What instructions of one opcode look like.

    :param out: ``space:dtype`` of the result. :param ins: of each operand.
    :param optional: further operands that may follow.
    :param numbers: names of its numbers: ``value`` and ``scale`` are finite floats, the others
        whole numbers from 0 to 255.
    """

    out: str
    ins: tuple[str, ...]
    rule: ShapeRule
    optional: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


def _same(i: Instruction) -> str | None:
    for region in i.ins:
        if region.shape != i.out.shape:
            return f"operand {list(region.shape)} gives {list(i.out.shape)}"
    return None


def _rows(i: Instruction) -> str | None:
    return _same(i) if i.out.shape else "a tensor without dimensions has no rows"


def _copy(i: Instruction) -> str | None:
    for region in (i.out, *i.ins):
        if not region.contiguous:
            return "a copy to or from the host has strides"
    return _same(i)


def _scale(i: Instruction) -> str | None:
    return _same(i) or (None if i.numbers[0] > 0 else f"scale {i.numbers[0]} is not positive")


def _matmul(i: Instruction) -> str | None:
    a, b = i.ins[0].shape, i.ins[1].shape
    if len(a) != 2 or len(b) != 2 or a[1] != b[1] or i.out.shape != (a[0], b[0]):
        return f"{list(a)} times {list(b)} transposed gives {list(i.out.shape)}"
    return _channels(i, a[1])


def _conv(i: Instruction) -> str | None:
    x, w = i.ins[0].shape, i.ins[1].shape
    if len(x) != 3 or len(w) != 4 or x[0] != w[1]:
        return f"kernel {list(w)} does not fit image {list(x)}"
    expected = (w[0], *window_output(x[1:], w[2:], i.numbers))
    if i.out.shape != expected:
        return f"kernel {list(w)} on image {list(x)} gives {list(i.out.shape)}"
    return _channels(i, math.prod(w[1:]))


def _channels(i: Instruction, products: int) -> str | None:
    """Scale and bias have a number for each output channel; the sums fit the accumulator."""
    count = i.ins[1].shape[0]
    for extra in i.ins[2:]:
        if extra.shape != (count,):
            return f"{list(extra.shape)} scales or biases for {count} channels"
    if i.ins[1].dtype == "i8":
        if products > MAX_PRODUCTS:
            return f"the sum of {products} products may overflow int32"
        if not i.numbers[-1] > 0:
            return f"scale {i.numbers[-1]} is not positive"
    return None


def _pool(i: Instruction) -> str | None:
    x, kernel, rest = i.ins[0].shape, i.numbers[:2], i.numbers[2:]
    if len(x) != 3 or 0 in kernel:
        return f"window {list(kernel)} does not fit image {list(x)}"
    if i.out.shape != (x[0], *window_output(x[1:], kernel, rest)):
        return f"window {list(kernel)} on image {list(x)} gives {list(i.out.shape)}"
    return None


def window_output(
    image: Sequence[int], kernel: Sequence[int | float], numbers: Sequence[int | float]
) -> tuple[int, int]:
    """Height and width that a window gives; ``numbers``: stride, padding, dilation, two each.

    ``(0, 0)`` where the window is larger than the padded image.
    """
    (sh, sw), (ph, pw), (dh, dw) = numbers[:2], numbers[2:4], numbers[4:6]
    if not (sh and sw and dh and dw):
        return (0, 0)
    height = (image[0] + 2 * ph - dh * (kernel[0] - 1) - 1) // sh + 1
    width = (image[1] + 2 * pw - dw * (kernel[1] - 1) - 1) // sw + 1
    return (int(height), int(width)) if min(height, width) > 0 else (0, 0)


_WINDOW = ("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w")
_F16, _I8, _F32 = "pad:f16", "pad:i8", "pad:f32"

OPS: dict[str, OpSpec] = {
    "COPY_IN": OpSpec("dram:f16", ("host:*",), _copy),
    "COPY_OUT": OpSpec("host:*", ("dram,const:f16",), _copy),
    "LOAD": OpSpec("pad:*", ("dram,const:*",), _same),
    "STORE": OpSpec("dram:*", ("pad:*",), _same),
    "ADD": OpSpec(_F16, (_F16, _F16), _same),
    "SUB": OpSpec(_F16, (_F16, _F16), _same),
    "MUL": OpSpec(_F16, (_F16, _F16), _same),
    "ADDI": OpSpec(_F16, (_F16,), _same, numbers=("value",)),
    "MULI": OpSpec(_F16, (_F16,), _same, numbers=("value",)),
    "RELU": OpSpec(_F16, (_F16,), _same),
    "GELU": OpSpec(_F16, (_F16,), _same),
    "GELUT": OpSpec(_F16, (_F16,), _same),
    "SOFTMAX": OpSpec(_F16, (_F16,), _rows),
    "QUANT": OpSpec(_I8, (_F16,), _scale, numbers=("scale",)),
    "MATMUL": OpSpec(_F16, (_F16, _F16), _matmul, optional=(_F16,)),
    "MATMUL8": OpSpec(_F16, (_I8, _I8, _F32), _matmul, optional=(_F16,), numbers=("scale",)),
    "CONV2D": OpSpec(_F16, (_F16, _F16), _conv, optional=(_F16,), numbers=_WINDOW),
    "CONV2D8": OpSpec(
        _F16, (_I8, _I8, _F32), _conv, optional=(_F16,), numbers=(*_WINDOW, "scale")
    ),
    "MAXPOOL": OpSpec(_F16, (_F16,), _pool, numbers=("kernel_h", "kernel_w", *_WINDOW)),
}  # fmt: skip


def fault(instruction: Instruction) -> str | None:
    """What is wrong with ``instruction``, in words; ``None`` if it is well formed.

    Whether its regions lie inside the memories is for the program to say.
    """
    spec = OPS.get(instruction.op)
    if spec is None:
        return f"there is no opcode {instruction.op!r}"
    wanted = (*spec.ins, *spec.optional)
    if not len(spec.ins) <= len(instruction.ins) <= len(wanted):
        return f"it has {len(instruction.ins)} operands"
    given = (instruction.out, *instruction.ins)
    for region, pattern in zip(given, (spec.out, *wanted), strict=False):
        reason = _misplaced(region, pattern)
        if reason is not None:
            return reason
    if instruction.op in ("LOAD", "STORE") and instruction.out.dtype != instruction.ins[0].dtype:
        return f"it copies {instruction.ins[0].dtype} to {instruction.out.dtype}"
    reason = next(_wrong_numbers(instruction, spec), None)
    return reason or spec.rule(instruction)


def _misplaced(region: Region, pattern: str) -> str | None:
    spaces, _, dtype = pattern.partition(":")
    if region.space not in spaces.split(","):
        return f"an operand lies in {region.space}, not in {spaces.replace(',', ' or ')}"
    if region.space == "host":
        return None if region.dtype in ("f16", "f32") else f"a host tensor of {region.dtype}"
    if dtype not in ("*", region.dtype):
        return f"an operand is {region.dtype}, not {dtype}"
    if region.address % ALIGNMENT and region.space == "pad":
        return f"scratchpad address {region.address} is not a multiple of {ALIGNMENT}"
    if region.address % WIDTH[region.dtype]:
        return f"address {region.address} is odd for {region.dtype}"
    if region.space == "pad" and not region.contiguous:
        return "a tensor in the scratchpad has strides"
    if len(region.shape) > MAX_RANK:
        return f"a tensor of rank {len(region.shape)}"
    return None


def _wrong_numbers(instruction: Instruction, spec: OpSpec) -> Iterator[str]:
    """Reasons, if any."""
    if len(instruction.numbers) != len(spec.numbers):
        yield f"it has {len(instruction.numbers)} numbers, not {len(spec.numbers)}"
        return
    for name, value in zip(spec.numbers, instruction.numbers, strict=True):
        if name in ("value", "scale"):
            if not isinstance(value, float) or not math.isfinite(value):
                yield f"{name} is {value!r}, not a finite float"
        elif type(value) is not int or not 0 <= value <= 255:
            yield f"{name} is {value!r}, not a whole number from 0 to 255"
