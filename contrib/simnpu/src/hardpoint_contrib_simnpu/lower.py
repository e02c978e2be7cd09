"""From a segment's graph to a program for the chip, with its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node

from hardpoint_contrib_simnpu.emitter import Emitter, Value
from hardpoint_contrib_simnpu.isa import dense
from hardpoint_contrib_simnpu.lowering import Lowering
from hardpoint_contrib_simnpu.memory import NUMPY, Array
from hardpoint_contrib_simnpu.origin import RefusedError, compile_error
from hardpoint_contrib_simnpu.program import Port, Program
from hardpoint_contrib_simnpu.rules import lower_node

_HOST = {torch.float32: "f32", torch.float16: "f16"}
# Proven by the exporter, and checked by the runtime for every call.
_PROVEN = torch.ops.aten._assert_tensor_metadata.default


@dataclass(frozen=True)
class Lowered:
    """A program with what belongs to it.

    :param weights: name -> its numbers, as the program says.
    :param quantizable: nodes that could compute in int8 -> the activation to calibrate.
    """

    program: Program
    weights: Mapping[str, Array]
    quantizable: Mapping[str, Node]


@dataclass
class _Segment:
    """A graph by its parts. :param constants: placeholder -> the weight's numbers."""

    inputs: list[Node] = field(default_factory=list)
    constants: dict[Node, Array] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)


def lower(
    program: ExportedProgram,
    *,
    scales: Mapping[str, float] | None = None,
    observed: Sequence[Node] = (),
) -> Lowered:
    """Lower a segment.

    :param scales: see :class:`Lowering`; ``None``: in fp16.
    :param observed: nodes whose values are given back as further outputs.
    :raises CompileError: it is not a segment as the contract says, or an operation is refused.
    """
    try:
        return _lower(_take_apart(program), scales, observed)
    except RefusedError as error:
        raise compile_error(
            "the segment cannot be compiled for simnpu",
            cause=str(error),
            remedy="leave a part of it to another target",
        ) from error


def _lower(
    segment: _Segment, scales: Mapping[str, float] | None, observed: Sequence[Node]
) -> Lowered:
    """:raises RefusedError: an operation, or all of them together, are beyond the chip."""
    emitter = Emitter()
    low = Lowering(emitter, scales)
    results = [*segment.outputs, *observed]
    last = _last_uses(segment, results)
    for number, node in enumerate(segment.inputs):
        if node in last:
            value = low.values[node] = emitter.new(_shape(node))
            emitter.hold(value)
            host = dense("host", number, _port(node).dtype, value.shape)
            emitter.emit("COPY_IN", emitter.region(value), host)
    for node, constant in segment.constants.items():
        low.values[node] = Value(constant.shape, constant=constant)
    dying: dict[Node, list[Node]] = {}
    for value_node, user in last.items():
        dying.setdefault(user, []).append(value_node)
    for node in segment.nodes:
        try:
            low.values[node] = lower_node(low, node)
        except RefusedError as error:
            raise RefusedError(f"{node.name} ({node.target}): {error}") from error
        emitter.hold(low.values[node])
        for dead in dying.get(node, ()):
            emitter.let_go(low.values[dead])
    ports = [*map(_port, segment.outputs), *(Port("f16", _shape(n)) for n in observed)]
    for number, (node, port) in enumerate(zip(results, ports, strict=True)):
        emitter.emit("COPY_OUT", dense("host", number, port.dtype, port.shape), low.region(node))
    made = Program(
        precision="fp16" if scales is None else "int8",
        inputs=tuple(map(_port, segment.inputs)),
        outputs=tuple(ports),
        weights={name: region for name, (region, _) in emitter.weights.items()},
        const_bytes=emitter.const_bytes,
        dram_bytes=emitter.dram.peak,
        instructions=tuple(emitter.instructions),
    )
    with np.errstate(over="ignore"):  # what fp16 cannot hold becomes infinity
        weights = {
            name: np.ascontiguousarray(array, NUMPY[region.dtype]).reshape(region.shape)
            for name, (region, array) in emitter.weights.items()
        }
    return Lowered(made, weights, low.quantizable)


def _last_uses(segment: _Segment, results: Sequence[Node]) -> dict[Node, Node]:
    """Value -> the node after which it is needed no more; the results are needed to the end."""
    last: dict[Node, Node] = {}
    for node in segment.nodes:
        last[node] = node
        for used in node.all_input_nodes:
            last[used] = node
    for node in results:
        last[node] = node.graph.output_node()
    return last


def _take_apart(program: ExportedProgram) -> _Segment:
    """:raises CompileError: it is not a segment as the contract says."""
    for result in program.graph_signature.output_specs:
        if result.kind is not OutputKind.USER_OUTPUT:
            raise compile_error(
                f"output {result.arg.name!r} is a {result.kind.name.lower().replace('_', ' ')}",
                cause="a segment gives back plain tensors; the runtime writes mutations back",
            )
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    held = {**program.constants, **program.state_dict}
    segment = _Segment()
    seen: dict[tuple[object, ...], Array] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec = specs[node.name]
            if spec.kind is InputKind.USER_INPUT:
                segment.inputs.append(node)
            elif node.users:
                tensor = held[str(spec.target)]
                key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
                segment.constants[node] = seen.setdefault(key, tensor.numpy(force=True))
        elif node.op == "output":
            segment.outputs = list(node.args[0])
        elif node.op != "call_function":
            raise compile_error(f"node {node.name!r} is a {node.op}, which the chip cannot run")
        elif node.target is not _PROVEN:
            segment.nodes.append(node)
    return segment


def _port(node: Node) -> Port:
    """:raises CompileError: a tensor that the chip cannot take from the host."""
    dtype = node.meta["val"].dtype
    if dtype not in _HOST:
        raise compile_error(
            f"{node.name!r} is {str(dtype).removeprefix('torch.')}",
            cause="the chip takes and gives float32 and float16",
        )
    return Port(_HOST[dtype], _shape(node))


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in node.meta["val"].shape)
