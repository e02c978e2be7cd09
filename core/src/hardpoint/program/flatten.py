"""Make an exported program flat and self-contained: our names and signature, no model code."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    TensorArgument,
)
from torch.utils import _pytree as pytree
from torch.utils._sympy.value_ranges import ValueRanges

from hardpoint.errors import CaptureError, HardpointWarning
from hardpoint.program import dims
from hardpoint.program.dims import Dim
from hardpoint.program.guards import read_guards, tighten
from hardpoint.program.memory import forget_memory
from hardpoint.program.program import MUTATIONS, Program
from hardpoint.program.signature import Signature, TensorSpec
from hardpoint.program.structure import Leaf, Node, Scalar, leaves
from hardpoint.program.untouched import snapshot

_CUSTOM = "a custom (TorchBind) object cannot go into a portable package: replace it by tensors"


def flat_program(
    exported: ExportedProgram,
    *,
    positional: tuple[str, ...],
    arguments: Mapping[str, Node],
    omitted: Mapping[str, Scalar],
    outputs: Node,
    input_names: Iterable[str],
    symbol_names: Mapping[tuple[int, int], str],
    example_inputs: tuple[torch.Tensor, ...],
    name: str,
    prefix: str = "",
) -> Program:
    """A :class:`Program` from an export whose inputs and outputs are flat tensors already.

    :param input_names: dotted paths of the tensor inputs, in order.
    :param symbol_names: (tensor, dimension) -> the caller's name for that size.
    :param prefix: what to strip from the names of parameters and buffers.
    :raises CaptureError: it holds something that cannot be packaged, or sizes we cannot describe.
    """
    original = exported
    forget_memory(exported.graph)
    exported = with_flat_names(exported, prefix)
    users = [n for n, s in _placeholders(exported) if s.kind is InputKind.USER_INPUT]
    fakes = [_fake(node, "an input") for node in users]
    symbols = _name_symbols(fakes, symbol_names)
    specs = tuple(_spec(path, fake, symbols) for path, fake in zip(input_names, fakes, strict=True))
    output_nodes = {n.name: n for n in exported.graph.nodes}
    results = [
        output_nodes[spec.arg.name]
        for spec in exported.graph_signature.output_specs
        if spec.kind is OutputKind.USER_OUTPUT
    ]
    paths = {leaf.index: path for path, leaf in leaves(outputs) if isinstance(leaf, Leaf)}
    result_specs = tuple(
        _spec(paths.get(i) or f"result{i}", _fake(node, "a result"), symbols)
        for i, node in enumerate(results)
    )
    shapes = [s.shape for s in specs]
    ranges = _ranges(exported, symbols)
    guards, ranges = tighten(read_guards(original, shapes, ranges), ranges)
    _narrow(exported, symbols, ranges)
    signature = Signature(
        positional=positional,
        arguments=dict(arguments),
        omitted=dict(omitted),
        inputs=specs,
        outputs=outputs,
        results=result_specs,
        symbols=ranges,
        guards=guards,
    )
    return Program(exported, signature, example_inputs, name)


def with_flat_names(exported: ExportedProgram, prefix: str = "") -> ExportedProgram:
    """The same program with ``prefix`` stripped from its weights and flat positional arguments.

    :raises CaptureError: it holds a custom object.
    """

    def strip(target: str | None) -> str | None:
        return target.removeprefix(prefix) if target else target

    old = exported.graph_signature
    for spec in old.input_specs:
        if spec.kind in (InputKind.CUSTOM_OBJ, InputKind.TOKEN):
            raise CaptureError(f"the model holds {spec.target or spec.kind.name}", remedy=_CUSTOM)
        if not isinstance(spec.arg, TensorArgument):
            raise CaptureError(
                f"input {spec.arg.name!r} is no tensor", remedy="pass a 0-d tensor in its place"
            )
    for out in old.output_specs:
        if not isinstance(out.arg, TensorArgument):
            raise CaptureError(
                f"result {out.arg.name!r} is no tensor", remedy="return tensors only"
            )
    signature = ExportGraphSignature(
        [dataclasses.replace(s, target=strip(s.target)) for s in old.input_specs],
        [
            s if s.kind is OutputKind.USER_INPUT_MUTATION
            else dataclasses.replace(s, target=strip(s.target))
            for s in old.output_specs
        ],
    )  # fmt: skip
    state = {s.target for s in old.output_specs if s.kind in MUTATIONS}

    def owned(name: str, value: Any) -> Any:
        """What a call changes is the program's own from here on, and no longer the model's."""
        return snapshot(value) if name in state else value

    return build(
        exported.graph_module,
        exported.graph,
        signature,
        {str(strip(k)): owned(k, v) for k, v in exported.state_dict.items()},
        {str(strip(k)): owned(k, v) for k, v in exported.constants.items()},
        exported,
    )


def build(
    root: torch.nn.Module | dict[str, object],
    graph: torch.fx.Graph,
    signature: ExportGraphSignature,
    state_dict: Mapping[str, torch.Tensor],
    constants: Mapping[str, Any],
    like: ExportedProgram,
    example_inputs: tuple[torch.Tensor, ...] | None = None,
) -> ExportedProgram:
    """An ``ExportedProgram`` with flat positional inputs and a flat tuple of outputs.

    Size ranges come from ``like``. Guards do not travel along: the runtime checks a call once, at
    the entry (research: a loaded segment with the root's guards fails with ``NameError: 'L'``).
    """
    count = sum(s.kind is InputKind.USER_INPUT for s in signature.input_specs)
    results = sum(s.kind is OutputKind.USER_OUTPUT for s in signature.output_specs)
    args = tuple(range(count))
    call = ModuleCallSignature(
        inputs=[],
        outputs=[],
        in_spec=pytree.tree_flatten((args, {}))[1],
        out_spec=pytree.tree_flatten(tuple(range(results)))[1],
    )
    made = ExportedProgram(
        root=root,
        graph=graph,
        graph_signature=signature,
        state_dict=dict(state_dict),
        range_constraints=dict(like.range_constraints),
        module_call_graph=[ModuleCallEntry(fqn="", signature=call)],
        example_inputs=None if example_inputs is None else (example_inputs, {}),
        constants=dict(constants),
    )
    made._guards_code = []  # no public way; see the docstring
    return made


def _placeholders(exported: ExportedProgram) -> list[tuple[torch.fx.Node, InputSpec]]:
    nodes = [n for n in exported.graph.nodes if n.op == "placeholder"]
    return list(zip(nodes, exported.graph_signature.input_specs, strict=True))


def _fake(node: torch.fx.Node, what: str) -> torch.Tensor:
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise CaptureError(f"{what} ({node.name}) is no tensor", remedy="pass and return tensors")
    return value


def _name_symbols(
    fakes: list[torch.Tensor], wanted: Mapping[tuple[int, int], str]
) -> dict[str, str]:
    """Sympy symbol -> our name: the caller's where given, else the exporter's own."""
    names: dict[str, str] = {}
    for (tensor, dim), name in wanted.items():
        size = fakes[tensor].shape[dim]
        if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
            names.setdefault(str(size.node.expr), name)
        elif isinstance(size, int):
            warnings.warn(
                f"size {name!r} (dimension {dim} of input {tensor}) was declared dynamic, but the "
                f"model fixes it at {size}",
                HardpointWarning,
                stacklevel=4,
            )
    return names


def _spec(name: str, fake: torch.Tensor, symbols: Mapping[str, str]) -> TensorSpec:
    shape: list[Dim] = []
    for size in fake.shape:
        if isinstance(size, int):
            shape.append(size)
            continue
        try:
            shape.append(dims.from_sympy(size.node.expr, symbols))
        except dims.DimError as error:
            raise CaptureError(
                f"the sizes of {name} cannot be described", cause=error.what
            ) from error
    return TensorSpec(name, str(fake.dtype).removeprefix("torch."), tuple(shape), str(fake.device))


def _narrow(
    exported: ExportedProgram,
    symbols: Mapping[str, str],
    ranges: Mapping[str, tuple[int, int | None]],
) -> None:
    """Tell the program of ranges that its guards narrowed: compilers look there alone."""
    for symbol, found in exported.range_constraints.items():
        if not found.lower.is_Integer or found.lower < 0:
            continue  # a number, not a size: it may be negative
        least, greatest = ranges[symbols.get(str(symbol), str(symbol))]
        upper = found.upper if greatest is None else greatest
        exported.range_constraints[symbol] = ValueRanges(max(least, found.lower), upper)


def _ranges(
    exported: ExportedProgram, symbols: Mapping[str, str]
) -> dict[str, tuple[int, int | None]]:
    """Our name of each size -> (least, greatest or None). Two symbols of one name: both hold."""
    ranges: dict[str, tuple[int, int | None]] = {}
    for symbol, found in exported.range_constraints.items():
        name = symbols.get(str(symbol), str(symbol))
        least = max(0, int(found.lower)) if found.lower.is_Integer else 0
        greatest = int(found.upper) if found.upper.is_Integer and found.upper < 2**62 else None
        if name in ranges:
            others = [g for g in (greatest, ranges[name][1]) if g is not None]
            least, greatest = max(least, ranges[name][0]), min(others, default=None)
        ranges[name] = (least, greatest)
    return ranges
