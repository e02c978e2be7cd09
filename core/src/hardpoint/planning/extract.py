"""Build each segment directly as an ``ExportedProgram`` of its own, without tracing again.

Only tensors cross between segments. A scalar (a size, an ``item()``) is computed again in every
segment that uses it: from a tensor that the segment has anyway, else from a user input that
carries the size, else from the tensor it was first read from.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node

from hardpoint.errors import PlanError
from hardpoint.planning import graph as kinds
from hardpoint.planning.segments import size_anchors
from hardpoint.program.flatten import build
from hardpoint.program.program import MUTATIONS


@dataclass
class Piece:
    """One segment on its way to becoming a program.

    :param members: compute nodes with their ``getitem`` and checks, in program order.
    :param lifted: placeholders of weights that it uses.
    :param inputs: values that come in: user inputs, mutable state, other segments' results.
    :param outputs: values that go out.
    :param sizes: scalar -> (tensor, dimension) to read it from, instead of computing it again.
    """

    members: list[Node]
    lifted: dict[Node, None] = field(default_factory=dict)
    inputs: dict[Node, None] = field(default_factory=dict)
    outputs: dict[Node, None] = field(default_factory=dict)
    sizes: dict[Node, tuple[Node, int]] = field(default_factory=dict)


def pieces(program: ExportedProgram, groups: Sequence[Sequence[Node]]) -> list[Piece]:
    """What each segment (its compute nodes given, in running order) takes in and gives out.

    :raises PlanError: a list of tensors would have to cross.
    """
    order = {node: i for i, node in enumerate(program.graph.nodes)}
    home = {node: i for i, group in enumerate(groups) for node in group}
    found = [
        Piece(sorted(members, key=order.__getitem__))
        for members in _members(program, home, len(groups))
    ]
    context = _Context(program)
    for piece in found:
        context.collect(piece)
    made_by = {node: piece for piece in found for node in piece.members}
    wanted = [node for piece in found for node in piece.inputs]
    wanted += list(kinds.output_node(program.graph).all_input_nodes)
    for node in wanted:
        if node in made_by:
            if not isinstance(node.meta["val"], torch.Tensor):
                raise PlanError(
                    f"{node.name} is a list of tensors that would cross between segments",
                    remedy="give it and its users the same target",
                )
            made_by[node].outputs[node] = None
    for piece in found:
        piece.inputs = dict.fromkeys(sorted(piece.inputs, key=order.__getitem__))
        piece.outputs = dict.fromkeys(sorted(piece.outputs, key=order.__getitem__))
    return found


def _members(program: ExportedProgram, home: dict[Node, int], count: int) -> list[list[Node]]:
    """Each segment's nodes: its compute nodes, what picks from their results, and their checks."""
    members: list[list[Node]] = [[] for _ in range(count)]
    sources: dict[Node, int] = {}  # latest segment that a value depends on, -1 for none
    for node in program.graph.nodes:
        if node in home:
            sources[node] = home[node]
            members[home[node]].append(node)
        elif node.op == "call_function":
            latest = max((sources.get(u, -1) for u in node.all_input_nodes), default=-1)
            sources[node] = latest
            if kinds.is_getitem(node):
                members[latest].append(node)
            elif kinds.is_check(node) and count and _worth_keeping(node):
                members[max(latest, 0)].append(node)
    return members


def _worth_keeping(check: Node) -> bool:
    """Metadata was proven by the exporter, and the runtime checks every input against it."""
    return check.target is not torch.ops.aten._assert_tensor_metadata.default


class _Context:
    """What all segments of one program share."""

    def __init__(self, program: ExportedProgram) -> None:
        self.anchors = size_anchors(program)
        state = mutable_state(program)
        specs = program.graph_signature.input_specs
        self.weights = {
            node
            for node, spec in zip(kinds.placeholders(program.graph), specs, strict=True)
            if spec.kind is not InputKind.USER_INPUT and spec.target not in state
        }

    def collect(self, piece: Piece) -> None:
        """Fill in what ``piece`` takes from outside."""
        members = set(piece.members)
        scalars: dict[Node, None] = {}
        for node in piece.members:
            for used in node.all_input_nodes:
                if kinds.is_scalar(used):
                    scalars[used] = None
                elif used not in members:
                    self._take(piece, used)
        carriers: dict[str, tuple[Node, int]] = {}
        for node in piece.inputs:
            value = node.meta["val"]
            for dim, size in enumerate(getattr(value, "shape", ())):
                if not isinstance(size, int):
                    carriers.setdefault(str(size.node.expr), (node, dim))
        todo = list(scalars)
        while todo:
            scalar = todo.pop()
            symbol = getattr(scalar.meta["val"], "node", None)
            expression = str(symbol.expr) if symbol is not None else ""
            if expression in carriers:
                piece.sizes[scalar] = carriers[expression]
            elif scalar in self.anchors:
                piece.sizes[scalar] = self.anchors[scalar]
                self._take(piece, self.anchors[scalar][0])
            else:
                for used in scalar.all_input_nodes:
                    if kinds.is_scalar(used):
                        if used not in scalars:
                            scalars[used] = None
                            todo.append(used)
                    elif used not in members:
                        self._take(piece, used)

    def _take(self, piece: Piece, node: Node) -> None:
        if node.op == "get_attr":
            return
        (piece.lifted if node in self.weights else piece.inputs)[node] = None


def mutable_state(program: ExportedProgram) -> set[str]:
    """Names of parameters and buffers that a run changes: the runtime owns them."""
    return {
        str(spec.target)
        for spec in program.graph_signature.output_specs
        if spec.kind in MUTATIONS and spec.kind is not OutputKind.USER_INPUT_MUTATION
    }


def extract(program: ExportedProgram, piece: Piece, *, contiguous: bool = False) -> ExportedProgram:
    """``piece`` as a program: its inputs and outputs are flat tensors, in the piece's order.

    :param contiguous: describe incoming tensors as contiguous, for a backend that gets only such.
    """
    graph = Graph()
    copies: dict[Node, Node] = {}
    specs = {s.arg.name: s for s in program.graph_signature.input_specs}
    input_specs: list[InputSpec] = []
    order = list(kinds.placeholders(program.graph))
    for node in [*(p for p in order if p in piece.lifted), *piece.inputs]:
        made = graph.placeholder(node.name)
        made.meta = copy.copy(node.meta)
        if contiguous and node in piece.inputs:
            made.meta["val"] = _contiguous(made.meta["val"])
        copies[node] = made
        argument = TensorArgument(name=made.name)
        if node in piece.lifted:
            original = specs[node.name]
            input_specs.append(
                InputSpec(original.kind, argument, original.target, original.persistent)
            )
        else:
            input_specs.append(InputSpec(InputKind.USER_INPUT, argument, None))
    modules: dict[str, object] = {}

    def copied(node: Node) -> Node:
        if node in copies:
            return copies[node]
        if node in piece.sizes:
            tensor, dim = piece.sizes[node]
            new = graph.call_function(torch.ops.aten.sym_size.int, (copies[tensor], dim))
            new.meta = copy.copy(node.meta)
        else:
            new = graph.node_copy(node, copied)
            new.meta = copy.copy(node.meta)
            if node.op == "get_attr":
                modules[str(node.target)] = getattr(program.graph_module, str(node.target))
        copies[node] = new
        return new

    for node in piece.members:
        copied(node)
    results = tuple(copies[node] for node in piece.outputs)
    graph.output(results)
    output_specs = [
        OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(name=r.name), None) for r in results
    ]
    targets = {str(s.target) for s in input_specs if s.target is not None}
    return build(
        modules,
        graph,
        ExportGraphSignature(input_specs, output_specs),
        {k: v for k, v in program.state_dict.items() if k in targets},
        {k: v for k, v in program.constants.items() if k in targets},
        program,
    )


def _contiguous(fake: torch.Tensor) -> torch.Tensor:
    with fake.fake_mode:  # type: ignore[attr-defined]
        return fake.contiguous()
