"""Rules for the vector unit: element by element, and row by row."""

from __future__ import annotations

import math

import torch

from hardpoint_contrib_simnpu.chip import SCRATCHPAD, in_bytes
from hardpoint_contrib_simnpu.emitter import Value, blocks, broadcast, permuted, room, window
from hardpoint_contrib_simnpu.isa import Region
from hardpoint_contrib_simnpu.lowering import Call, Lowering, Rule
from hardpoint_contrib_simnpu.origin import RefusedError

_aten = torch.ops.aten


def _elementwise(
    low: Lowering, op: str, operands: list[Region], shape: tuple[int, ...], *numbers: float
) -> Value:
    """One instruction for each block; smaller operands are repeated as they are loaded."""
    emitter, made = low.emitter, low.emitter.new(shape)
    out = emitter.region(made)
    views = [broadcast(region, shape) for region in operands]
    for starts, sizes in blocks(shape, room(len(views) + 1)):
        mark = emitter.mark()
        tiles = [emitter.load(window(view, starts, sizes)) for view in views]
        result = emitter.emit(op, emitter.tile(sizes), *tiles, numbers=numbers)
        emitter.emit("STORE", window(out, starts, sizes), result)
        emitter.release(mark)
    return made


def _unary(op: str) -> Rule:
    def rule(low: Lowering, call: Call) -> Value:
        return _elementwise(low, op, [low.region(call.tensor("self"))], call.shape)

    return rule


def _gelu(low: Lowering, call: Call) -> Value:
    op = {"none": "GELU", "tanh": "GELUT"}.get(call.arguments["approximate"])
    if op is None:
        raise RefusedError(f"gelu is not known by {call.arguments['approximate']!r}")
    return _unary(op)(low, call)


def _binary(op: str) -> Rule:
    def rule(low: Lowering, call: Call) -> Value:
        if call.arguments.get("alpha", 1) != 1:
            raise RefusedError("alpha is not 1")
        a, b = call.tensor("self"), call.arguments["other"]
        if isinstance(b, torch.fx.Node):
            if op == "DIV":
                raise RefusedError("it divides by a tensor; the vector unit cannot divide")
            return _elementwise(low, op, [low.region(a), low.region(b)], call.shape)
        immediate, value = _immediate(op, b)
        return _elementwise(low, immediate, [low.region(a)], call.shape, value)

    return rule


def _immediate(op: str, number: object) -> tuple[str, float]:
    """The instruction for a number as second operand, and the number it takes."""
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise RefusedError(f"its second operand is {number!r}")
    if op == "DIV" and number == 0:
        raise RefusedError("it divides by zero")
    try:
        value = 1 / number if op == "DIV" else float(number)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise RefusedError(f"its second operand {number} is not a finite number")
    if op in ("ADD", "SUB"):
        return "ADDI", value if op == "ADD" else -value
    return "MULI", value


def _softmax(low: Lowering, call: Call) -> Value:
    rank, dim = len(call.shape), call.arguments["dim"]
    if rank == 0:
        raise RefusedError("its operand has no dimensions")
    dim %= rank
    order = [*(d for d in range(rank) if d != dim), dim]
    emitter, made = low.emitter, low.emitter.new(call.shape)
    source = permuted(low.region(call.tensor("self")), order)
    target = permuted(emitter.region(made), order)
    length = source.shape[-1]
    if length > room(2):
        raise RefusedError(
            f"a row of {length:,} numbers and its result take {in_bytes(4 * length)}, the "
            f"scratchpad has {in_bytes(SCRATCHPAD)}"
        )
    for starts, sizes in blocks(source.shape[:-1], room(2) // length):
        begin, size = (*starts, 0), (*sizes, length)
        mark = emitter.mark()
        tile = emitter.load(window(source, begin, size))
        result = emitter.emit("SOFTMAX", emitter.tile(size), tile)
        emitter.emit("STORE", window(target, begin, size), result)
        emitter.release(mark)
    return made


RULES: dict[object, Rule] = {
    _aten.add.Tensor: _binary("ADD"),
    _aten.sub.Tensor: _binary("SUB"),
    _aten.mul.Tensor: _binary("MUL"),
    _aten.div.Tensor: _binary("DIV"),
    _aten.relu.default: _unary("RELU"),
    _aten.gelu.default: _gelu,
    _aten.softmax.int: _softmax,
    _aten._softmax.default: _softmax,
}
