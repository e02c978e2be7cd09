"""Which sizes may change: from the caller's words to ``torch.export``'s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim

from hardpoint.errors import CaptureError
from hardpoint.program.structure import Constant, Fields, Leaf, Node

Dynamic = Mapping[str, Any] | Sequence[Any] | None
# A size of the call: (index of the tensor, dimension).
Place = tuple[int, int]


def dynamic_shapes(
    nodes: Mapping[str, Node],
    dynamic: Dynamic,
    positional: tuple[str, ...],
    tensors: Sequence[torch.Tensor],
) -> tuple[list[dict[int, Any]], dict[Place, str]]:
    """Per tensor ``torch.export``'s spec, and the caller's names: (tensor, dimension) -> name.

    :raises CaptureError: ``dynamic`` does not fit the arguments, or the examples do not fit it.
    """
    if dynamic is None:
        dynamic = {}
    if not isinstance(dynamic, Mapping):
        dynamic = dict(zip(positional, dynamic, strict=False))
    unknown = dynamic.keys() - nodes.keys()
    if unknown:
        raise CaptureError(
            f"dynamic names {min(unknown)!r}, which is no argument of this call",
            remedy=f"the arguments are: {', '.join(nodes)}",
        )
    shapes: list[dict[int, Any]] = [{} for _ in tensors]
    names: dict[Place, str] = {}
    for key, spec in dynamic.items():
        for index, dims in _pair(nodes[key], spec, key):
            rank = tensors[index].dim()
            for d, size in dims.items():
                if type(d) is not int or not -rank <= d < rank:
                    raise CaptureError(
                        f"dynamic[{key!r}] names dimension {d!r} of a {rank}-d tensor",
                        remedy="write {0: 'batch'}",
                    )
                at = d % rank
                if isinstance(size, str):
                    _check_name(size, names, tensors, (index, at))
                    names[index, at] = size
                    size = Dim.DYNAMIC
                elif isinstance(size, type(Dim("x"))):
                    names[index, at] = size.__name__
                if size is not None:
                    shapes[index][at] = size
    return shapes, names


def same_sizes(names: Mapping[Place, str]) -> list[tuple[Place, Place]]:
    """Pairs of places that bear one name: the program may rely on their sizes being the same."""
    first: dict[str, Place] = {}
    return [(first[n], place) for place, n in names.items() if first.setdefault(n, place) != place]


def _check_name(
    name: str, names: Mapping[Place, str], tensors: Sequence[torch.Tensor], place: Place
) -> None:
    if not name.isidentifier():
        raise CaptureError(
            f"{name!r} is no name for a size", remedy="use letters, digits and underscores"
        )
    size = tensors[place[0]].shape[place[1]]
    for (index, dim), other in names.items():
        if other == name and tensors[index].shape[dim] != size:
            raise CaptureError(
                f"the examples have two different sizes for {name!r}: "
                f"{tensors[index].shape[dim]} and {size}",
                remedy="give examples of one size, or the two dimensions different names",
            )


def _pair(node: Node, spec: Any, path: str) -> list[tuple[int, dict[int, Any]]]:
    """Walk arguments and ``dynamic`` side by side: (tensor index, its dynamic dimensions)."""
    if spec is None or isinstance(node, Constant):
        return []
    if isinstance(node, Leaf):
        if isinstance(spec, (list, tuple)):
            spec = dict(enumerate(spec))
        if not isinstance(spec, Mapping):
            raise CaptureError(
                f"dynamic[{path!r}] must map dimensions to names, got {spec!r}",
                remedy="write {0: 'batch'}",
            )
        return [(node.index, dict(spec))]
    names = node.names if isinstance(node, Fields) else range(len(node.items))
    children: dict[str | int, Node] = dict(zip(names, node.items, strict=True))
    if isinstance(spec, (list, tuple)):
        spec = dict(zip(children, spec, strict=False))
    if not isinstance(spec, Mapping):
        raise CaptureError(
            f"dynamic[{path!r}] must be nested like the argument, got {spec!r}",
            remedy=f"its parts are: {', '.join(map(str, children))}",
        )
    wrong = [key for key in spec if key not in children]
    if wrong:
        raise CaptureError(
            f"dynamic[{path!r}] names {wrong[0]!r}, which is not in the argument",
            remedy=f"its parts are: {', '.join(map(str, children))}",
        )
    return [pair for k, s in spec.items() for pair in _pair(children[k], s, f"{path}.{k}")]
