"""Which nodes of a program run on this backend, and why the others do not."""

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

_QUANTIZED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})


def support(program: ExportedProgram, operators: Operators) -> Support:
    """Look at every compute node's operator, arguments and dtypes."""
    reasons: dict[str, str] = {}
    names = []
    for node in compute_nodes(program):
        names.append(node.name)
        reason = unsupported(node, program.graph_module, operators)
        if reason is not None:
            reasons[node.name] = reason
    return Support(frozenset(names) - reasons.keys(), reasons)


def unsupported(node: Node, module: GraphModule, operators: Operators) -> str | None:
    """Why ``node`` cannot run here, in words; ``None`` where it can."""
    try:
        operators.name(node.target)
    except UnknownOperatorError as error:
        return str(error)
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        if target._schema.is_mutable:
            return f"{target} writes into its arguments; segments are functional"
        if not _has_kernel(target):
            return f"PyTorch {torch.__version__} has no CPU kernel of {target}"
    for tensor in _tensors(node):
        reason = _bad_tensor(tensor)
        if reason is not None:
            return reason
    for used in node.all_input_nodes:
        sub = getattr(module, str(used.target), None) if used.op == "get_attr" else None
        if isinstance(sub, GraphModule):
            for inner in sub.graph.nodes:
                if inner.op == "call_function":
                    reason = unsupported(inner, sub, operators)
                    if reason is not None:
                        return f"in its branch or body, {inner.name}: {reason}"
    return None


def _has_kernel(target: torch._ops.OpOverload) -> bool:
    """Whether the dispatcher would find something to run for CPU tensors."""
    name = f"{target.namespace}::{target._opname}"
    if target._overloadname != "default":
        name += f".{target._overloadname}"
    # BackendSelect: factories, which have no tensor to be dispatched on.
    return torch._C._dispatch_has_computed_kernel_for_dispatch_key(
        name, "CPU"
    ) or torch._C._dispatch_has_kernel_for_dispatch_key(name, "BackendSelect")


def _tensors(node: Node) -> Iterator[torch.Tensor]:
    """What goes in and comes out, as the exporter recorded it."""
    values: list[Mapping[str, Any]] = [n.meta for n in node.all_input_nodes]
    for meta in [*values, node.meta]:
        for value in tree_leaves(meta.get("val")):
            if isinstance(value, torch.Tensor):
                yield value


def _bad_tensor(tensor: torch.Tensor) -> str | None:
    if tensor.device.type != "cpu":
        return f"a tensor of it lives on {tensor.device}, not on the CPU"
    if tensor.layout is not torch.strided:
        return f"a tensor of it has the layout {tensor.layout}, which artifacts do not hold"
    if tensor.dtype in _QUANTIZED:
        return f"a tensor of it has the quantized dtype {tensor.dtype}, which artifacts do not hold"
    if tensor.dtype is torch.complex32:
        return "the CPU has hardly a kernel for torch.complex32"
    return None
