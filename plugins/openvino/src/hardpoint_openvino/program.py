"""A program as OpenVINO's front end reads it: decomposed, its weights beside the graph."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.decomp_utils import CustomDecompTable
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, GraphModule, Node

from hardpoint_openvino.indices import check_indices
from hardpoint_openvino.origin import compile_error
from hardpoint_openvino.ranges import Ranges
from hardpoint_openvino.recurrent import WHOLE, Cut, cut_out

# Proven by the exporter, or checked by the runtime before a call.
CHECKS = frozenset(
    {
        torch.ops.aten._assert_tensor_metadata.default,
        torch.ops.aten._assert_scalar.default,
        torch.ops.aten._assert_async.default,
        torch.ops.aten._assert_async.msg,
        torch.ops.aten.sym_constrain_range.default,
        torch.ops.aten.sym_constrain_range_for_size.default,
    }
)


@dataclass
class Source:
    """A program on its way into the front end.

    :param weights: attribute ``w<i>`` -> (the program's name for it, the tensor).
    :param ranges: (least, greatest or ``None``) of each dimension of each input.
    :param outputs: how many results the segment has, with that of :attr:`indices`.
    :param indices: whose indices a result tells of: see :mod:`.indices`.
    :param cuts: recurrent nodes, whose inputs and results follow those of the segment.
    """

    graph: Graph
    weights: dict[str, tuple[str, torch.Tensor]] = field(default_factory=dict)
    ranges: list[list[tuple[int, int | None]]] = field(default_factory=list)
    outputs: int = 0
    indices: list[str] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)

    def inputs(self) -> list[Node]:
        """The placeholders, in order."""
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @functools.cached_property
    def module(self) -> GraphModule:
        """What the decoder walks; weights are attributes.

        The model computes on their memory, and must not outlive it.
        """
        root = torch.nn.Module()
        for attribute, (_, tensor) in self.weights.items():
            # Storage order, since the front end takes a constant's memory as it lies.
            root.register_buffer(attribute, tensor.detach().contiguous())
        return GraphModule(root, self.graph)


@functools.cache
def _table() -> Any:
    """PyTorch's decompositions to core operators, but for those that OpenVINO takes whole."""
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    table: Any = CustomDecompTable()  # type: ignore[no-untyped-call]
    for operator in (*ops_to_not_decompose(), *WHOLE):
        table.pop(operator, None)
    table[torch.ops.aten.native_group_norm.default] = _group_norm
    return table


def _group_norm(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, *sizes: Any
) -> Any:
    """In float32, as PyTorch does inside: OpenVINO's takes no narrower dtype."""
    if x.dtype not in (torch.bfloat16, torch.float16):
        return NotImplemented
    wide = [None if t is None else t.to(torch.float32) for t in (weight, bias)]
    found = torch.ops.aten.native_group_norm.default(x.to(torch.float32), *wide, *sizes)
    statistics = x.dtype if weight is None else weight.dtype
    return found[0].to(x.dtype), found[1].to(statistics), found[2].to(statistics)


def decompose(program: ExportedProgram) -> ExportedProgram:
    """``program`` in the operators that the front end knows, as far as PyTorch can say it so."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations while it traces
        decomposed: ExportedProgram = program.run_decompositions(_table())
    return decomposed


def origin_of(node: Node, program: ExportedProgram) -> str:
    """The node of ``program`` that ``node`` of its decomposition was made of, or ``""``."""
    wanted = id(program.graph)
    todo = list(node.meta.get("from_node") or ())
    while todo:
        source = todo.pop()
        if source.graph_id == wanted:
            return str(source.name)
        todo.extend(source.from_node or ())
    return ""


def take_apart(program: ExportedProgram) -> Source:
    """The graph of a segment with its weights as attributes.

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
    source = Source(Graph())
    copies: dict[Node, Node] = {}
    placeholders = [n for n in program.graph.nodes if n.op == "placeholder"]
    placeholders.sort(key=lambda n: specs[n.name].kind is not InputKind.USER_INPUT)
    seen: dict[tuple[object, ...], str] = {}
    for node in placeholders:
        if specs[node.name].kind is InputKind.USER_INPUT:
            copies[node] = source.graph.placeholder(node.name)
            source.ranges.append(ranges(node.meta["val"], program))
        else:
            name = str(specs[node.name].target)
            tensor = program.state_dict.get(name, program.constants.get(name))
            if not isinstance(tensor, torch.Tensor):
                raise compile_error(f"weight {name!r} is a {type(tensor).__name__}, not a tensor")
            copies[node] = source.graph.get_attr(_attribute(source, seen, name, tensor))
        copies[node].meta = copy.copy(node.meta)
    for node in program.graph.nodes:
        if node.op == "placeholder" or node.target in CHECKS:
            continue
        if node.op not in ("call_function", "output"):
            raise compile_error(f"node {node.name!r} is a {node.op}, which OpenVINO cannot take")
        copies[node] = source.graph.node_copy(node, copies.__getitem__)
        copies[node].meta = copy.copy(node.meta)
    known = {copy: node for node, copy in copies.items()}
    source.indices = check_indices(source.graph, known, Ranges(program))
    source.outputs = len(source.graph.output_node().args[0])  # type: ignore[arg-type]
    source.cuts = cut_out(source.graph)
    return source


def _attribute(
    source: Source, seen: dict[tuple[object, ...], str], name: str, tensor: torch.Tensor
) -> str:
    """The attribute of one weight; tied ones share theirs."""
    key: tuple[object, ...] = (id(tensor),)
    if tensor.numel():
        key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
    if key not in seen:
        seen[key] = f"w{len(source.weights)}"
        source.weights[seen[key]] = (name, tensor)
    return seen[key]


def ranges(value: torch.Tensor, program: ExportedProgram) -> list[tuple[int, int | None]]:
    """(least, greatest or ``None``) of each dimension of a placeholder's value."""
    found: list[tuple[int, int | None]] = []
    for size in value.shape:
        if isinstance(size, int):
            found.append((size, size))
            continue
        expression = size.node.expr
        known: Mapping[Any, Any] = program.range_constraints
        limits = known.get(expression) or size.node.shape_env.bound_sympy(expression)
        low = int(limits.lower) if limits.lower.is_Integer else 0
        high = int(limits.upper) if limits.upper.is_Integer else None
        found.append((max(0, low), high))
    return found
