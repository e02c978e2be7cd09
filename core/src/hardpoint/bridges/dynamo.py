"""``torch.compile(model, backend="hardpoint")``, through the ``torch_dynamo_backends`` entry point.

Dynamo hands over a graph of the model with real inputs; we capture, plan, compile and verify it.
Parameters are inputs of that graph, so a later update of them is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.export.graph_signature import OutputKind

from hardpoint import api
from hardpoint.errors import CaptureError, ConfigError, InputError, did_you_mean
from hardpoint.planning.graph import is_view
from hardpoint.program.capture import capture_module
from hardpoint.program.program import Program

# Options of ours -> what they mean; as in ``hardpoint.plan`` and ``hardpoint.compile``.
PLAN_OPTIONS = ("targets", "objective", "partitioner", "registry")
COMPILE_OPTIONS = ("precision", "max_error", "options", "isolate", "timeout", "registry")


def hardpoint(
    module: torch.fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile one Dynamo graph; ``torch.compile(model, backend="hardpoint", options={...})``.

    :param options: ``targets objective partitioner precision max_error options isolate timeout``,
        as in :func:`hardpoint.plan` and :func:`hardpoint.compile`; ``registry`` for embedders.
    :raises ConfigError: an option that does not exist, or ``mode=``, which is Inductor's.
    """
    known = {*PLAN_OPTIONS, *COMPILE_OPTIONS}
    given = dict(options or {})
    unknown = sorted(given.keys() - known)
    if unknown:
        raise ConfigError(
            f"backend 'hardpoint' has no option {unknown[0]!r}",
            remedy=did_you_mean(unknown[0], known),
        )
    if mode is not None:
        raise ConfigError(
            f"backend 'hardpoint' has no mode {mode!r}",
            remedy="use options={'targets': ..., 'precision': ...}",
        )
    return _compile(module, example_inputs, given)


def _compile(
    module: torch.fx.GraphModule, examples: Sequence[Any], options: Mapping[str, Any]
) -> Callable[..., Any]:
    shapes = [_symbolic_shape(n) for n in module.graph.nodes if n.op == "placeholder"]
    tensors = [i for i, e in enumerate(examples) if isinstance(e, torch.Tensor)]
    sizes = {}
    fixed: dict[int, object] = {}
    for i, example in enumerate(examples):
        if isinstance(example, torch.SymInt):
            carrier = _carrier(example, shapes)
            if carrier is None:
                fixed[i] = int(example)  # a number of its own: Dynamo compiles anew for another
            else:
                sizes[i] = carrier
        elif i not in tensors:
            fixed[i] = example
    dynamic = tuple(
        {d: torch.export.Dim.AUTO for d, size in enumerate(shapes[i]) if _is_open(size)}
        for i in tensors
    )
    if torch.is_grad_enabled() and any(examples[i].requires_grad for i in tensors):
        raise InputError(
            "backend 'hardpoint' compiles for inference, and this graph would be trained",
            cause="gradients are on, and the model's parameters (or its inputs) require them",
            remedy="call the model inside `with torch.no_grad():`",
        )
    wrapper = _TensorsOnly(module, len(examples), tensors, sizes, fixed).eval()
    # Dynamo is tracing now; capture must not find its context and take it for our own.
    with torch._guards.tracing(None):
        program = capture_module(
            wrapper,
            [examples[i].detach().clone() for i in tensors],
            dynamic=dynamic,
            name="graph",
        )
        _refuse_views(program)
        plan = api.plan(program, **{k: v for k, v in options.items() if k in PLAN_OPTIONS})
        wanted = {k: v for k, v in options.items() if k in COMPILE_OPTIONS}
        compiled = api.compile(plan, **wanted)

    def call(*inputs: Any) -> Any:
        return compiled(*[inputs[i] for i in tensors])

    return call


class _TensorsOnly(torch.nn.Module):
    """Calls Dynamo's graph with tensors alone: its size arguments are read off the tensors."""

    def __init__(
        self,
        module: torch.nn.Module,
        count: int,
        tensors: Sequence[int],
        sizes: Mapping[int, tuple[int, int]],
        fixed: Mapping[int, object],
    ) -> None:
        super().__init__()
        self.module = module
        self._count, self._tensors, self._sizes, self._fixed = count, tensors, sizes, fixed

    def forward(self, *tensors: torch.Tensor) -> Any:
        """The graph's own tuple of results."""
        inputs: list[Any] = [None] * self._count
        for i, tensor in zip(self._tensors, tensors, strict=True):
            inputs[i] = tensor
        for i, (tensor_index, dim) in self._sizes.items():
            inputs[i] = inputs[tensor_index].shape[dim]
        for i, value in self._fixed.items():
            inputs[i] = value
        return self.module(*inputs)


def _symbolic_shape(node: torch.fx.Node) -> tuple[Any, ...]:
    """The placeholder's sizes as Dynamo knows them: numbers and symbols."""
    return tuple(getattr(node.meta.get("example_value"), "shape", ()))


def _is_open(size: object) -> bool:
    """Whether Dynamo left the size open; a symbol that it has fixed since is a number."""
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


def _carrier(size: torch.SymInt, shapes: Sequence[tuple[Any, ...]]) -> tuple[int, int] | None:
    """The (input, dimension) that has this size, if one has."""
    for i, shape in enumerate(shapes):
        for d, candidate in enumerate(shape):
            if isinstance(candidate, torch.SymInt) and candidate.node.expr == size.node.expr:
                return i, d
    return None


def _refuse_views(program: Program) -> None:
    """In a compiled graph a result cannot be a view of an input that the graph writes to.

    :raises CaptureError: the model returns one; eager code after it may rely on the sharing.
    """
    specs = program.exported.graph_signature.output_specs
    nodes = {node.name: node for node in program.exported.graph.nodes}
    written = {s.arg.name for s in specs if s.kind is OutputKind.USER_INPUT_MUTATION}
    for spec in specs:
        node = nodes[spec.arg.name]
        while spec.kind is OutputKind.USER_OUTPUT and node.name not in written:
            if not is_view(node) or node.target is torch.ops.aten.clone.default:
                break
            node = node.all_input_nodes[0]
        else:
            if spec.kind is OutputKind.USER_OUTPUT and spec.arg.name not in written:
                raise CaptureError(
                    "the graph returns a view of an input that it changes",
                    remedy="return a clone of it, or leave that function out of torch.compile",
                )
