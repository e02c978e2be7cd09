"""Which nodes of a program run at a place, and why the others do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from hardpoint import Support
from hardpoint.planning import compute_nodes
from hardpoint_cpu.operators import Operators, UnknownOperatorError
from hardpoint_cpu.place import CPU, Place

# Made of other operators: they win over a device's fallback for everything.
_COMPOSITE = ("CompositeImplicitAutograd", "CompositeExplicitAutograd")
_QUANTIZED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})


def support(program: ExportedProgram, operators: Operators, place: Place = CPU) -> Support:
    """Look at every compute node's operator, arguments and dtypes.

    Tensors may be recorded on the CPU, where most programs are captured, or at the place itself.
    """
    reasons: dict[str, str] = {}
    names = []
    for node in compute_nodes(program):
        names.append(node.name)
        reason = unsupported(node, program.graph_module, operators, place)
        if reason is not None:
            reasons[node.name] = reason
    return Support(frozenset(names) - reasons.keys(), reasons)


def unsupported(
    node: Node, module: GraphModule, operators: Operators, place: Place = CPU
) -> str | None:
    """Why ``node`` cannot run here, in words; ``None`` where it can."""
    try:
        operators.name(node.target)
    except UnknownOperatorError as error:
        return str(error)
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if target._schema.is_mutable:
            return f"{target} writes into its arguments; segments are functional"
        if not _has_kernel(target, place):
            return f"PyTorch {torch.__version__} has no {place.name} kernel of {target}"
    for tensor in _tensors(node):
        reason = _bad_tensor(tensor, place)
        if reason is not None:
            return reason
    for used in node.all_input_nodes:
        sub = getattr(module, str(used.target), None) if used.op == "get_attr" else None
        if isinstance(sub, GraphModule):
            for inner in sub.graph.nodes:
                if inner.op == "call_function":
                    reason = unsupported(inner, sub, operators, place)
                    if reason is not None:
                        return f"in its branch or body, {inner.name}: {reason}"
    return None


def _has_kernel(target: torch._ops.OpOverload, place: Place) -> bool:
    """Whether the dispatcher would find something to run for tensors at ``place``."""
    name = f"{target.namespace}::{target._opname}"
    if target._overloadname != "default":
        name += f".{target._overloadname}"
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    if has(name, "BackendSelect"):  # factories, which have no tensor to be dispatched on
        return True
    if place.falls_back:
        return any(has(name, key) for key in (place.key, *_COMPOSITE))
    return torch._C._dispatch_has_computed_kernel_for_dispatch_key(name, place.key)


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    """What goes in and comes out, as the exporter recorded it."""
    values: list[Mapping[str, Any]] = [n.meta for n in node.all_input_nodes]
    for meta in [*values, node.meta]:
        for value in tree_leaves(meta.get("val")):
            if isinstance(value, torch.Tensor):
                yield value


def _bad_tensor(tensor: torch.Tensor, place: Place) -> str | None:
    if tensor.device.type not in ("cpu", place.device.type):
        return f"a tensor of it lives on {tensor.device}, not on the {place.name}"
    if tensor.layout is not torch.strided:
        return f"a tensor of it has the layout {tensor.layout}, which artifacts do not hold"
    if tensor.dtype in _QUANTIZED:
        return f"a tensor of it has the quantized dtype {tensor.dtype}, which artifacts do not hold"
    return place.lacks.get(tensor.dtype)
