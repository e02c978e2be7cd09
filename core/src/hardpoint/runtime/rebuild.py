"""From a call's flat results to the model's own structure of them, prepared once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from hardpoint.program.structure import Fields, Items, Leaf, Node, unflatten


def rebuilder(node: Node) -> Callable[[Sequence[Any]], object]:
    """:func:`unflatten` of ``node`` from its flat tensors, as a function; the usual forms of it
    (one tensor, a dict or a tuple of tensors) without walking the description at each call.
    """
    if isinstance(node, Leaf) and not node.scalar:
        return operator.itemgetter(node.index)
    if isinstance(node, (Items, Fields)) and node.items:
        found = [n.index for n in node.items if isinstance(n, Leaf) and not n.scalar]
        if len(found) == len(node.items):
            if isinstance(node, Items) and node.kind == "list":
                return lambda flat: [flat[i] for i in found]
            if isinstance(node, Items):
                return lambda flat: tuple([flat[i] for i in found])
            if not node.cls:
                names = node.names
                return lambda flat: dict(zip(names, [flat[i] for i in found], strict=True))
    return lambda flat: unflatten(
        node, lambda leaf: flat[leaf.index].item() if leaf.scalar else flat[leaf.index]
    )
