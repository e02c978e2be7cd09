"""A program as this backend works on it: a plain graph, its weights beside it.

In ``Segment.graph`` placeholders are the user's inputs; weights and sub-graphs of control flow are
``get_attr`` nodes named ``w<i>`` and as in the program; the output is a flat tuple.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.fx import Graph, GraphModule, Node

from hardpoint_cpu.executed import Executed
from hardpoint_cpu.origin import compile_error

# Proven by the exporter; and a change of precision makes it untrue.
_DROPPED = frozenset({torch.ops.aten._assert_tensor_metadata.default})


@dataclass
class Segment:
    """One program on its way through the compiler.

    :param weights: attribute ``w<i>`` -> (the program's name for it, the tensor).
    :param parameters: those attributes that the model calls parameters, not buffers or constants.
    :param subgraphs: attribute -> sub-graph of a control-flow operator.
    :param executed: what it is computed in.
    """

    graph: Graph
    weights: dict[str, tuple[str, torch.Tensor]] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    subgraphs: dict[str, GraphModule] = field(default_factory=dict)
    executed: Executed = field(default_factory=Executed)

    def add_weight(self, name: str, tensor: torch.Tensor, *, parameter: bool = False) -> str:
        """Hold one weight more; its attribute."""
        attribute = f"w{len(self.weights)}"
        while attribute in self.weights:
            attribute += "_"
        self.weights[attribute] = (name, tensor)
        if parameter:
            self.parameters.add(attribute)
        return attribute

    def drop_unused_weights(self) -> None:
        """Let go of the weights that no node refers to."""
        used = {node.target for node in self.graph.nodes if node.op == "get_attr"}
        self.weights = {name: found for name, found in self.weights.items() if name in used}

    def named_weights(self) -> dict[str, torch.Tensor]:
        """The weights by the program's names, for ``Artifact.weights``."""
        return dict(self.weights.values())

    def placeholders(self) -> list[Node]:
        """The inputs, in order."""
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    def outputs(self) -> tuple[Node, ...]:
        """The results, in order."""
        output = next(n for n in reversed(self.graph.nodes) if n.op == "output")
        results: tuple[Node, ...] = output.args[0]
        return results

    def module(self) -> GraphModule:
        """A callable module of its own, weights registered as buffers."""
        root = torch.nn.Module()
        for attribute, (_, tensor) in self.weights.items():
            root.register_buffer(attribute, tensor.detach())
        for attribute, sub in self.subgraphs.items():
            setattr(root, attribute, copy.deepcopy(sub))
        graph = Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        for node in graph.nodes:
            node.meta.clear()  # what the exporter knew belongs to its own shape environment
        return GraphModule(root, graph)


def from_program(program: ExportedProgram) -> Segment:
    """Take ``program`` apart.

    :raises CompileError: it is not a segment as the contract says (mutations, script objects).
    """
    signature = program.graph_signature
    for result in signature.output_specs:
        if result.kind is not OutputKind.USER_OUTPUT:
            raise compile_error(
                f"output {result.arg.name!r} is a {result.kind.name.lower().replace('_', ' ')}",
                cause="a segment gives back plain tensors; the runtime writes mutations back",
            )
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    segment = Segment(Graph())
    copies: dict[Node, Node] = {}
    seen: dict[tuple[object, ...], str] = {}
    inputs = [n for n in program.graph.nodes if n.op == "placeholder"]
    # Graph functions take their inputs first; weights, being attributes, may stand anywhere.
    inputs.sort(key=lambda n: specs[n.name].kind is not InputKind.USER_INPUT)
    for node in inputs:
        spec = specs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            copies[node] = segment.graph.placeholder(node.name)
        else:
            copies[node] = segment.graph.get_attr(_weight(program, segment, spec, seen))
        copies[node].meta = copy.copy(node.meta)
    for node in program.graph.nodes:
        if node.op == "placeholder" or node.target in _DROPPED:
            continue
        if node.op == "get_attr":
            segment.subgraphs[str(node.target)] = getattr(program.graph_module, str(node.target))
        elif node.op not in ("call_function", "output"):
            raise compile_error(f"node {node.name!r} is a {node.op}, which no program should hold")
        made = segment.graph.node_copy(node, copies.__getitem__)
        made.meta = copy.copy(node.meta)
        copies[node] = made
    return segment


def _weight(
    program: ExportedProgram,
    segment: Segment,
    spec: InputSpec,
    seen: dict[tuple[object, ...], str],
) -> str:
    """The attribute of one lifted weight; tied weights share theirs."""
    name = str(spec.target)
    tensor = program.state_dict.get(name, program.constants.get(name))
    if not isinstance(tensor, torch.Tensor):
        raise compile_error(
            f"weight {name!r} is a {type(tensor).__name__}, not a tensor",
            remedy="pass it as an input, or keep it out of the exported part",
        )
    key = identity(tensor)
    attribute = seen.get(key)
    if attribute is None:
        attribute = seen[key] = f"w{len(segment.weights)}"
        segment.weights[attribute] = (name, tensor)
    if spec.kind is InputKind.PARAMETER:
        segment.parameters.add(attribute)
    return attribute


def identity(tensor: torch.Tensor) -> tuple[object, ...]:
    """Equal for two tensors that are the same elements of the same memory."""
    if tensor.numel() == 0:
        return (id(tensor),)
    return (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
