"""What the nodes of a program are: computation, scalars, views, checks, effects."""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

_SCALAR = (torch.SymInt, torch.SymFloat, torch.SymBool, bool, int, float)
_CHECKS = {
    torch.ops.aten._assert_scalar.default,
    torch.ops.aten._assert_async.msg,
    torch.ops.aten._assert_async.default,
    torch.ops.aten._assert_tensor_metadata.default,
    torch.ops.aten.sym_constrain_range.default,
    torch.ops.aten.sym_constrain_range_for_size.default,
}
# Arguments that switch an operator's randomness off.
_TRAINING = {"train", "training"}
_DROPOUT = {"dropout_p", "dropout"}
# Shape operators that compute nothing but are not marked as views in their schema.
_SHAPE_ONLY = {torch.ops.aten.clone.default, torch.ops.aten.alias.default}


def compute_nodes(program: ExportedProgram) -> list[Node]:
    """The nodes that are assigned to targets, in order.

    Not among them: inputs and outputs, ``getitem`` (goes with its producer), scalars such as
    ``sym_size`` (recomputed wherever they are used), sub-graphs of control flow (go with their
    operator), and run-time checks (go with what they check).
    """
    return [n for n in program.graph.nodes if is_compute(n)]


def is_compute(node: Node) -> bool:
    """Whether ``node`` is assigned to a target of its own."""
    return (
        node.op == "call_function"
        and node.target is not operator.getitem
        and node.target not in _CHECKS
        and not is_scalar(node)
    )


def is_scalar(node: Node) -> bool:
    """Whether ``node`` gives a number, not a tensor: never crosses between segments."""
    if node.op != "call_function" or "val" not in node.meta:
        return False
    return isinstance(node.meta["val"], _SCALAR)


def is_check(node: Node) -> bool:
    """Whether ``node`` only asserts something at run time."""
    return node.op == "call_function" and node.target in _CHECKS


def is_getitem(node: Node) -> bool:
    """Whether ``node`` picks one of its producer's several results."""
    return node.op == "call_function" and node.target is operator.getitem and not is_scalar(node)


def is_view(node: Node) -> bool:
    """Whether ``node`` does shape work only, no tensor mathematics: never worth a segment."""
    if node.op != "call_function":
        return False
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target in _SHAPE_ONLY or target.is_view
    return target is operator.getitem


def is_ordered(node: Node) -> bool:
    """Whether ``node`` must keep its place among its like: draws random numbers or has effects."""
    target = node.target
    mutable = isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
    return mutable or is_random(node)


def is_random(node: Node) -> bool:
    """Whether ``node`` draws random numbers, so that no two runs need agree.

    The tag alone does not tell: attention, LSTM and dropout bear it also where they are asked for
    no dropout, as in inference.
    """
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return any(is_random(n) for graph in _subgraphs(node) for n in graph.nodes)
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    for i, argument in enumerate(target._schema.arguments):
        by_name = node.kwargs.get(argument.name, argument.default_value)
        value = node.args[i] if i < len(node.args) else by_name
        if argument.name in _TRAINING and value is False:
            return False
        if argument.name in _DROPOUT and value == 0:
            return False
    return True


def _subgraphs(node: Node) -> list[Graph]:
    """The branches or bodies of a control-flow operator."""
    root = node.graph.owning_module
    attributes = [u for u in node.all_input_nodes if u.op == "get_attr"] if root else []
    found = [getattr(root, str(u.target), None) for u in attributes]
    return [module.graph for module in found if isinstance(module, torch.fx.GraphModule)]


def producer(node: Node) -> Node:
    """The compute node (or placeholder) whose result ``node`` is, seen through ``getitem``."""
    while is_getitem(node):
        (node,) = node.all_input_nodes
    return node


def placeholders(graph: Graph) -> Iterator[Node]:
    """The graph's inputs, in order."""
    return (n for n in graph.nodes if n.op == "placeholder")


def output_node(graph: Graph) -> Node:
    """The graph's only output node."""
    return graph.output_node()
