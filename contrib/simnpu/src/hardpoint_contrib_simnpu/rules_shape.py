"""Rules for operators that move numbers and compute none."""

from __future__ import annotations

import numpy as np
import torch

from hardpoint_contrib_simnpu.emitter import Value, broadcast, permuted
from hardpoint_contrib_simnpu.lowering import Call, Lowering, Rule

_aten = torch.ops.aten


def _same_memory(low: Lowering, call: Call) -> Value:
    """Other sizes for the same elements: every value is contiguous, so nothing is copied."""
    value = low.values[call.tensor("self")]
    constant = value.constant
    return Value(
        call.shape, value.buffer, None if constant is None else constant.reshape(call.shape)
    )


def _turned(low: Lowering, call: Call, order: list[int]) -> Value:
    node = call.tensor("self")
    constant = low.values[node].constant
    if constant is not None:
        return Value(call.shape, constant=constant.transpose(order))
    return low.copy(permuted(low.region(node), order))


def _permute(low: Lowering, call: Call) -> Value:
    rank = len(call.shape)
    return _turned(low, call, [d % rank for d in call.arguments["dims"]])


def _transpose(low: Lowering, call: Call) -> Value:
    order = list(range(len(call.shape)))
    if order:
        a, b = (call.arguments[name] % len(order) for name in ("dim0", "dim1"))
        order[a], order[b] = order[b], order[a]
    return _turned(low, call, order)


def _t(low: Lowering, call: Call) -> Value:
    return _turned(low, call, list(reversed(range(len(call.shape)))))


def _expand(low: Lowering, call: Call) -> Value:
    node = call.tensor("self")
    constant = low.values[node].constant
    if constant is not None:
        return Value(call.shape, constant=np.broadcast_to(constant, call.shape))
    return low.copy(broadcast(low.region(node), call.shape))


RULES: dict[object, Rule] = {
    _aten.reshape.default: _same_memory,
    _aten.view.default: _same_memory,
    _aten._unsafe_view.default: _same_memory,
    _aten.unsqueeze.default: _same_memory,
    _aten.squeeze.default: _same_memory,
    _aten.squeeze.dim: _same_memory,
    _aten.squeeze.dims: _same_memory,
    _aten.clone.default: _same_memory,
    _aten.alias.default: _same_memory,
    _aten.permute.default: _permute,
    _aten.transpose.int: _transpose,
    _aten.t.default: _t,
    _aten.expand.default: _expand,
}
