"""What the exporter knows of a graph's values, and how a pass that adds nodes keeps that up.

Each node's ``meta["val"]`` is a fake tensor, of the sizes and the dtype that the value will have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node
from torch.utils._pytree import tree_map_only

from hardpoint_cpu.origin import compile_error, in_words


def dtype_of(node: Node) -> torch.dtype | None:
    """The dtype of a node's value; ``None`` for what is not one tensor."""
    value = node.meta.get("val")
    return value.dtype if isinstance(value, torch.Tensor) else None


def fake_mode(value: Any) -> Any:
    """The fake mode under which the program was captured."""
    for item in [value] if isinstance(value, torch.Tensor) else value:
        if isinstance(item, torch.Tensor):
            return item.fake_mode  # type: ignore[attr-defined]
    raise TypeError(f"no tensor in {value!r}")


def call(
    graph: Graph,
    target: torch._ops.OpOverload,
    args: Any,
    kwargs: Mapping[str, Any],
    node: Node,
    precision: str,
) -> Node:
    """Add a call in place of ``node``, and learn from PyTorch what its result is like.

    :raises CompileError: the operator does not take these; names ``node`` and ``precision``.
    """
    made = graph.call_function(target, args, dict(kwargs))
    mode = fake_mode(node.meta["val"])
    fake_args, fake_kwargs = tree_map_only(Node, lambda n: n.meta["val"], (args, dict(kwargs)))
    try:
        with mode, mode.shape_env.suppress_guards(), torch.no_grad():
            made.meta["val"] = target(*fake_args, **fake_kwargs)
    except Exception as error:
        raise compile_error(
            f"node {node.name!r} ({target}) cannot be computed in {precision}",
            cause=in_words(error),
            remedy="use precision 'fp32' for this segment",
        ) from error
    return made


def weight(graph: Graph, attribute: str, tensor: torch.Tensor, mode: Any) -> Node:
    """Add a reference to a weight that the program did not have."""
    made = graph.get_attr(attribute)
    with mode:
        made.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype)
    return made
