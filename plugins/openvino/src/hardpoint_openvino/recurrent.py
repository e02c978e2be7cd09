"""LSTM and GRU as OpenVINO's own sequences, which its front end does not make of exported graphs.

The node is cut out before conversion: what it takes leaves the graph as further results, what it
gives comes in as further inputs. Afterwards the sequences are built between the two.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.fx import Graph, Node

from hardpoint_openvino.runtime import op, ov

_LSTM, _GRU = torch.ops.aten.lstm.input, torch.ops.aten.gru.input
RECURRENT = (_LSTM, _GRU)
# Never decomposed: each step of the sequence would be a piece of the graph.
WHOLE = (*RECURRENT, torch.ops.aten.rnn_tanh.input, torch.ops.aten.rnn_relu.input)


@dataclass(frozen=True)
class Cut:
    """One node that was cut out.

    :param taken: how many of the further results it takes: input, states, weights.
    :param given: which of its results come in as further inputs.
    """

    gru: bool
    layers: int
    biases: bool
    both_ways: bool
    batch_first: bool
    hidden: int
    taken: int
    given: tuple[int, ...]


def refusal(node: Node) -> str:
    """Why a recurrent node is declined, or ``""``."""
    states, weights = _states(node), _listed(node.args[2])
    _, _, _, biases, layers, _, train, both, _ = cast("tuple[Any, ...]", node.args)
    if train:
        return "in training it drops values at random"
    if node.args[0].meta["val"].dim() != 3:  # type: ignore[union-attr]
        return "a sequence without a batch dimension is not taken"
    if len(weights) != layers * (1 + both) * (2 + 2 * biases):
        return "an LSTM with a projection is not taken"
    if any(n.meta["val"].dtype is not torch.float32 for n in (*states, *weights)):
        return "it was proven right in float32 only"
    return ""


def _states(node: Node) -> list[Node]:
    return _listed(node.args[1]) if node.target is _LSTM else [node.args[1]]  # type: ignore[list-item]


def _listed(value: object) -> list[Node]:
    assert isinstance(value, (list, tuple))
    return list(value)


def cut_out(graph: Graph) -> list[Cut]:
    """Take the recurrent nodes out of ``graph``, in order; see above for what is left."""
    cuts: list[Cut] = []
    more: list[Node] = []
    found = [n for n in graph.nodes if n.op == "call_function" and n.target in RECURRENT]
    last = next((n for n in reversed(graph.nodes) if n.op == "placeholder"), None)
    for node in found:
        taken = [node.args[0], *_states(node), *_listed(node.args[2])]
        given = []
        for user in list(node.users):
            assert user.target is operator.getitem
            with graph.inserting_after(last) if last else graph.inserting_before():
                last = graph.placeholder(f"{user.name}_of_{node.name}")
            last.meta = dict(user.meta)
            user.replace_all_uses_with(last)
            graph.erase_node(user)
            given.append(user.args[1])
        _, _, _, biases, layers, _, _, both, first = node.args
        hidden = _states(node)[0].meta["val"].shape[-1]
        cuts.append(
            Cut(
                node.target is _GRU, layers, biases, both, first, int(hidden), len(taken),
                tuple(given),
            )
        )  # fmt: skip
        graph.erase_node(node)
        more += taken
    if cuts:
        output = graph.output_node()
        output.args = ((*output.args[0], *more),)  # type: ignore[misc]
    return cuts


def join(model: ov.Model, cuts: Sequence[Cut], inputs: int, outputs: int) -> None:
    """Build the sequences between the further results and inputs, and take these away.

    :param inputs: how many inputs the segment has of its own. :param outputs: the same of results.
    """
    results, parameters = model.get_results()[outputs:], model.get_parameters()[inputs:]
    ends = iter([result.input_value(0) for result in results])
    starts = iter(parameters)
    for cut in cuts:
        made = _sequences(cut, [next(ends) for _ in range(cut.taken)])
        for which in cut.given:
            next(starts).output(0).replace(made[which])
    for result in results:
        model.remove_result(result)
    for parameter in parameters:
        model.remove_parameter(parameter)
    model.validate_nodes_and_infer_types()


def _sequences(cut: Cut, taken: list[ov.Output]) -> list[ov.Output]:
    """All layers: the sequence of results, then the last state, or states, of each layer."""
    ways = 1 + cut.both_ways
    states = 1 if cut.gru else 2
    x = taken[0] if cut.batch_first else _turned(taken[0], (1, 0, 2))
    weights = taken[1 + states :]
    size = ways * (2 + 2 * cut.biases)
    ended: list[list[ov.Output]] = [[] for _ in range(states)]
    for layer in range(cut.layers):
        begun = [_turned(_part(s, layer * ways, ways), (1, 0, 2)) for s in taken[1 : 1 + states]]
        node = _layer(cut, x, begun, weights[layer * size : (layer + 1) * size])
        # [batch, way, step, hidden] -> [batch, step, way * hidden]
        x = op.reshape(
            _turned(node.output(0), (0, 2, 1, 3)), op.constant(np.array([0, 0, -1])), True
        ).output(0)
        for i, held in enumerate(ended):
            held.append(_turned(node.output(1 + i), (1, 0, 2)))
    y = x if cut.batch_first else _turned(x, (1, 0, 2))
    return [y, *(op.concat(held, 0).output(0) for held in ended)]


def _layer(cut: Cut, x: ov.Output, begun: list[ov.Output], weights: Sequence[ov.Output]) -> ov.Node:
    each = 2 + 2 * cut.biases
    ways = [weights[i : i + each] for i in range(0, len(weights), each)]
    order = (1, 0, 2) if cut.gru else (1, 0, 2, 3)  # PyTorch's r z n and i f g o
    w = _stacked([_gates(way[0], order) for way in ways])
    r = _stacked([_gates(way[1], order) for way in ways])
    b = _stacked([_bias(cut, way, order) for way in ways])
    shape = op.shape_of(x)
    batch, steps = (
        op.gather(shape, op.constant(np.array([i])), op.constant(np.int64(0))) for i in (0, 1)
    )
    lengths = op.broadcast(steps, batch)
    direction = "bidirectional" if cut.both_ways else "forward"
    if cut.gru:
        return op.gru_sequence(
            x, begun[0], lengths, w, r, b, cut.hidden, direction, linear_before_reset=True
        )
    return op.lstm_sequence(x, begun[0], begun[1], lengths, w, r, b, cut.hidden, direction)


def _bias(cut: Cut, way: Sequence[ov.Output], order: Sequence[int]) -> ov.Output:
    """The two biases as one; of a GRU's last gate both, since one of them is reset with the state.

    OpenVINO's order is that of its gates, then the state's bias of the last.
    """
    if not cut.biases:
        return op.constant(np.zeros((len(order) + cut.gru) * cut.hidden, np.float32)).output(0)
    outer, inner = _gates(way[2], order), _gates(way[3], order)
    both = op.add(outer, inner).output(0)
    if not cut.gru:
        return both
    size = cut.hidden
    parts = [_part(both, 0, 2 * size), _part(outer, 2 * size, size), _part(inner, 2 * size, size)]
    return op.concat(parts, 0).output(0)


def _gates(weight: ov.Output, order: Sequence[int]) -> ov.Output:
    parts = op.split(weight, op.constant(np.int64(0)), len(order)).outputs()
    return op.concat([parts[i] for i in order], 0).output(0)


def _stacked(values: list[ov.Output]) -> ov.Output:
    axis = op.constant(np.int64(0))
    return op.concat([op.unsqueeze(value, axis) for value in values], 0).output(0)


def _turned(value: ov.Output, order: Sequence[int]) -> ov.Output:
    return op.transpose(value, op.constant(np.array(order))).output(0)


def _part(value: ov.Output, start: int, count: int) -> ov.Output:
    at = [op.constant(np.array([n])) for n in (start, start + count, 1, 0)]
    return op.slice(value, *at).output(0)
