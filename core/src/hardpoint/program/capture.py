"""From an ``nn.Module`` and example inputs to a :class:`Program`."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.fx.experimental import _config as _symbolic_config

from hardpoint.errors import CaptureError, HardpointWarning
from hardpoint.program import structure
from hardpoint.program.dynamic import Dynamic, Place, dynamic_shapes, same_sizes
from hardpoint.program.explain import explain_export_failure
from hardpoint.program.flatten import flat_program
from hardpoint.program.program import Program
from hardpoint.program.signature import MISSING
from hardpoint.program.structure import Fields, Leaf, Node
from hardpoint.program.untouched import (
    plain_tensors,
    quiet_failure,
    refuse_plain_state,
    replaced_tensors,
    snapshot,
    untouched,
)

# Sizes 0 and 1 are not taken for special unless the model's own code does so, and then a guard says
# it; otherwise no program could run a batch of 1. It is the mode of torch.onnx's exporter too.
_OBLIVIOUS = {"backed_size_oblivious": True}


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
    _refuse_unusual(model)
    if model.training:
        warnings.warn(
            f"{type(model).__name__} is in training mode: dropout and batch statistics are "
            "captured as they are; call model.eval() first for inference",
            HardpointWarning,
            stacklevel=3,
        )
    if isinstance(args, (torch.Tensor, str, Mapping)):
        raise CaptureError(
            f"args is a {type(args).__name__}, it must be a tuple of the model's arguments",
            remedy="write (x,) for one argument, and kwargs={...} for named ones",
        )
    arguments, positional, omitted = _bind(model, args, dict(kwargs or {}))
    tensors: list[torch.Tensor] = []
    paths: list[str] = []

    def leaf(value: object, path: str) -> Node | None:
        if not isinstance(value, torch.Tensor):
            return None
        if value.layout is not torch.strided or value.is_nested:
            raise CaptureError(
                f"argument {path} is no dense tensor",
                cause="it is nested" if value.is_nested else f"its layout is {value.layout}",
                remedy="pass dense tensors, and make others of them inside the model",
            )
        # The exporter would give a tensor that is passed twice one set of sizes, fixed or dynamic.
        tensors.append(value.clone() if any(value is t for t in tensors) else value)
        paths.append(path)
        return Leaf(len(tensors) - 1)

    classes: dict[str, type] = {}
    try:
        nodes = {
            key: structure.flatten(value, leaf, key, seen=classes)
            for key, value in arguments.items()
        }
    except structure.StructureError as error:
        raise CaptureError(
            f"an argument of {type(model).__name__} cannot be captured",
            cause=error.what,
            remedy=error.remedy,
        ) from error
    shapes, symbols = dynamic_shapes(nodes, dynamic, positional, tensors)
    described: list[Node] = []
    replaced: dict[str, torch.Tensor] = {}
    # A closure, not an attribute: torch.export runs a copy of the module.
    wrapper = _Flat(
        model, positional[: len(args)], nodes, same_sizes(symbols), described.append,
        lambda node: classes.get(node.cls), replaced.update,
    )  # fmt: skip
    declared = (tuple(shapes),) if any(shapes) else None
    try:
        with (
            torch.no_grad(),
            untouched(model),
            quiet_failure(),
            _symbolic_config.patch(**_OBLIVIOUS),  # type: ignore[attr-defined]
            warnings.catch_warnings(),
        ):
            # Torch deep-copies a class that it has deprecated itself; no user can do anything.
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            exported = torch.export.export(
                wrapper, tuple(tensors), dynamic_shapes=declared, strict=False
            ).run_decompositions({})
    except structure.StructureError as error:
        raise CaptureError(
            f"the result of {type(model).__name__} cannot be captured",
            cause=error.what,
            remedy=error.remedy,
        ) from error
    except CaptureError:
        raise
    except Exception as error:
        raise explain_export_failure(error, type(model).__name__, paths, shapes) from error
    refuse_plain_state(replaced, exported)
    return flat_program(
        exported,
        positional=positional,
        arguments=nodes,
        omitted=omitted,
        outputs=described[-1],
        input_names=paths,
        symbol_names=symbols,
        example_inputs=tuple(map(snapshot, tensors)),
        name=name or type(model).__name__,
        prefix="model.",
    )


def _refuse_unusual(model: torch.nn.Module) -> None:
    kind = type(model).__name__
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            f"{kind} is a TorchScript module, whose Python code is gone",
            remedy="pass the module that it was made from",
        )
    held = [*model.named_parameters(), *model.named_buffers()]
    empty = [name for name, tensor in held if tensor.is_meta]
    if empty:
        raise CaptureError(
            f"{kind} has {len(empty)} weights without data",
            cause=f"on the meta device: {', '.join(empty[:4])}",
            remedy="load its weights first, e.g. hardpoint.load_weights(path, into=model)",
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
        same: Sequence[tuple[Place, Place]],
        describe: Callable[[Node], None],
        find: Callable[[Fields], type | None],
        replaced: Callable[[Mapping[str, torch.Tensor]], None],
    ) -> None:
        super().__init__()
        self.model = model
        self._positional = positional
        self._nodes = nodes
        self._same = same
        self._describe = describe
        self._find = find
        self._replaced = replaced

    def forward(self, *flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for (one, i), (other, j) in self._same:
            same = flat[one].shape[i] == flat[other].shape[j]
            torch._check(same)  # type: ignore[no-untyped-call]
        values = {
            key: structure.unflatten(node, lambda leaf: flat[leaf.index], self._find)
            for key, node in self._nodes.items()
        }
        args = [values.pop(key) for key in self._positional]
        state = dict(self.model.named_buffers(remove_duplicate=False))
        plain = plain_tensors(self.model)
        result = self.model(*args, **values)
        self._replaced(replaced_tensors(self.model, plain))
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
        return tuple(_keep_rebound(self.model, state, results))


def _keep_rebound(
    model: torch.nn.Module, before: Mapping[str, torch.Tensor], results: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Make ``self.count = self.count + 1`` a mutation of the buffer; give the results.

    ``torch.export`` (2.13) sees it only where the buffer is the outermost module's own; of any
    other the new value is lost in silence. Everything is copied first, as results and new values
    may be views of old ones.
    """
    after = dict(model.named_buffers(remove_duplicate=False))
    changed = {name: new for name, new in after.items() if before.get(name) is not new}
    for name, new in changed.items():
        old = before.get(name)
        if old is None or old.shape != new.shape or old.dtype != new.dtype:
            was = "new" if old is None else f"{old.dtype}{list(old.shape)} before the call"
            raise CaptureError(
                f"the model gives its buffer {name!r} another size or type",
                cause=f"it is {new.dtype}{list(new.shape)} after a call, and was {was}",
                remedy="keep the buffer's size: register it at full size and write into it",
            )
    if not changed:
        return results
    results = [result.clone() for result in results]
    copies = [(before[name], new.clone()) for name, new in changed.items()]
    for old, new in copies:
        old.copy_(new)
    return results


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
    known = [p.name for p in parameters]
    unknown = [key for key in kwargs if key not in known]
    if unknown and not open_ended:
        raise CaptureError(
            f"{type(model).__name__}.forward has no parameter {unknown[0]!r}",
            remedy=f"its parameters are: {', '.join(p.name for p in parameters)}",
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
