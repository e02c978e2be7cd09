"""From an ``nn.Module`` and example inputs to a :class:`Program`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export import Dim

from hardpoint.errors import CaptureError, HardpointWarning
from hardpoint.program import structure
from hardpoint.program.explain import explain_export_failure
from hardpoint.program.flatten import flat_program
from hardpoint.program.program import Program
from hardpoint.program.signature import MISSING
from hardpoint.program.structure import Constant, Fields, Items, Leaf, Node

Dynamic = Mapping[str, Any] | Sequence[Any] | None


def capture_module(
    model: torch.nn.Module,
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    dynamic: Dynamic = None,
    name: str = "",
) -> Program:
    """Capture ``model`` as it is called with ``args`` and ``kwargs``.

    :param dynamic: which sizes may change: ``{"x": {0: "batch"}}`` by argument name, or
        ``torch.export``'s own ``dynamic_shapes`` (with ``Dim`` objects). Numbers, strings and
        ``None`` among the arguments are fixed at their value.
    :raises CaptureError: ``torch.export`` cannot trace the model; says which line and what to do.
    """
    if model.training:
        warnings.warn(
            f"{type(model).__name__} is in training mode: dropout and batch statistics are "
            "captured as they are; call model.eval() first for inference",
            HardpointWarning,
            stacklevel=3,
        )
    arguments, positional, omitted = _bind(model, args, dict(kwargs or {}))
    tensors: list[torch.Tensor] = []
    paths: list[str] = []

    def leaf(value: object, path: str) -> Node | None:
        if not isinstance(value, torch.Tensor):
            return None
        tensors.append(value)
        paths.append(path)
        return Leaf(len(tensors) - 1)

    nodes = {key: structure.flatten(value, leaf, key) for key, value in arguments.items()}
    shapes, symbols = _dynamic_shapes(nodes, dynamic, positional, tensors)
    described: list[Node] = []
    # A closure, not an attribute: torch.export runs a copy of the module.
    wrapper = _Flat(model, positional[: len(args)], nodes, described.append)
    try:
        with torch.no_grad():
            exported = torch.export.export(
                wrapper, tuple(tensors), dynamic_shapes=(tuple(shapes),), strict=False
            ).run_decompositions({})
    except structure.StructureError as error:
        raise CaptureError(
            f"the result of {type(model).__name__} cannot be captured",
            cause=error.what,
            remedy=error.remedy,
        ) from error
    except Exception as error:
        raise explain_export_failure(error, type(model).__name__, paths, shapes) from error
    return flat_program(
        exported,
        positional=positional,
        arguments=nodes,
        omitted=omitted,
        outputs=described[-1],
        input_names=paths,
        symbol_names=symbols,
        example_inputs=tuple(tensors),
        name=name or type(model).__name__,
        prefix="model.",
    )


class _Flat(torch.nn.Module):
    """Calls ``model`` with nested arguments made from flat tensors, and flattens its result.

    Our own description of the nesting replaces torch's pytree registry, so that neither capture
    nor a package depends on what the model's library registered.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        positional: tuple[str, ...],
        nodes: Mapping[str, Node],
        describe: Callable[[Node], None],
    ) -> None:
        super().__init__()
        self.model = model
        self._positional = positional
        self._nodes = nodes
        self._describe = describe

    def forward(self, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = {
            key: structure.unflatten(node, lambda leaf: flat[leaf.index])
            for key, node in self._nodes.items()
        }
        args = [values.pop(key) for key in self._positional]
        result = self.model(*args, **values)
        results: list[torch.Tensor] = []

        def leaf(value: object, path: str) -> Node | None:
            scalar = isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool))
            if scalar:
                value = torch.scalar_tensor(value, dtype=_scalar_dtype(value))  # type: ignore[arg-type]
            if not isinstance(value, torch.Tensor):
                return None
            results.append(value)
            return Leaf(len(results) - 1, scalar)

        self._describe(structure.flatten(result, leaf))
        return tuple(results)


def _scalar_dtype(value: object) -> torch.dtype:
    if isinstance(value, torch.SymInt):
        return torch.int64
    return torch.float64 if isinstance(value, torch.SymFloat) else torch.bool


def _bind(
    model: torch.nn.Module, args: Sequence[object], kwargs: dict[str, object]
) -> tuple[dict[str, object], tuple[str, ...], dict[str, structure.Scalar]]:
    """Arguments by name; names that may be given by position; left-out names and defaults."""
    parameters = inspect.signature(model.forward).parameters.values()
    positional = [
        p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    extra = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
    if extra is not None:
        positional += [f"{extra}_{i}" for i in range(len(args) - len(positional))]
    if len(args) > len(positional):
        raise CaptureError(
            f"{type(model).__name__}.forward takes {len(positional)} positional arguments, "
            f"got {len(args)}",
            remedy=f"its parameters are: {', '.join(positional)}",
        )
    arguments = dict(zip(positional, args, strict=False))
    twice = arguments.keys() & kwargs.keys()
    if twice:
        raise CaptureError(f"argument {min(twice)!r} is given by position and by name")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in parameters}
    unknown = [key for key in kwargs if key not in known]
    if unknown and not open_ended:
        raise CaptureError(
            f"{type(model).__name__}.forward has no parameter {unknown[0]!r}",
            remedy=f"its parameters are: {', '.join(known)}",
        )
    arguments.update(kwargs)
    missing = [
        p.name for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in arguments
    ]  # fmt: skip
    if missing:
        raise CaptureError(
            f"{type(model).__name__}.forward needs {missing[0]!r}",
            remedy="pass an example value for it in args or kwargs",
        )
    omitted: dict[str, structure.Scalar] = {}
    for p in parameters:
        if p.name not in arguments and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            plain = p.default is None or isinstance(p.default, (bool, int, float, str))
            omitted[p.name] = p.default if plain else MISSING
    return arguments, tuple(positional), omitted


def _dynamic_shapes(
    nodes: Mapping[str, Node],
    dynamic: Dynamic,
    positional: tuple[str, ...],
    tensors: Sequence[torch.Tensor],
) -> tuple[list[dict[int, Any]], dict[tuple[int, int], str]]:
    """Per tensor ``torch.export``'s spec, and the caller's names: (tensor, dimension) -> name."""
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
    names: dict[tuple[int, int], str] = {}
    for key, spec in dynamic.items():
        for index, dims in _pair(nodes[key], spec, key):
            rank = tensors[index].dim()
            for d, size in dims.items():
                at = d + rank if d < 0 else d
                if not 0 <= at < rank:
                    raise CaptureError(f"dynamic[{key!r}] names dimension {d} of a {rank}-d tensor")
                if isinstance(size, str):
                    names[index, at] = size
                    size = Dim.DYNAMIC
                elif isinstance(size, type(Dim("x"))):
                    names[index, at] = size.__name__
                if size is not None:
                    shapes[index][at] = size
    return shapes, names


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
    if isinstance(node, Items):
        children = dict(enumerate(node.items))
        spec = dict(enumerate(spec)) if isinstance(spec, (list, tuple)) else spec
    elif isinstance(node, Fields):
        children = dict(zip(node.names, node.items, strict=True))  # type: ignore[arg-type]
        spec = spec if isinstance(spec, Mapping) else dict(zip(node.names, spec, strict=False))
    wrong = spec.keys() - children.keys()
    if wrong:
        raise CaptureError(f"dynamic[{path!r}] names {wrong.pop()!r}, which is not in the argument")
    return [pair for k, s in spec.items() for pair in _pair(children[k], s, f"{path}.{k}")]
