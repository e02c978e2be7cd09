"""A ``.pt2`` file as a program: one of our packages, or what ``torch.export.save`` wrote."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from hardpoint.errors import CaptureError
from hardpoint.package.archive import Archive
from hardpoint.package.contents import read_contents
from hardpoint.package.integrity import check_manifest, is_hardpoint_package
from hardpoint.package.pt2 import read_program
from hardpoint.package.refusal import MalformedError, refusing
from hardpoint.program import structure
from hardpoint.program.capture import capture_module
from hardpoint.program.guards import inherited_guards
from hardpoint.program.program import Program
from hardpoint.program.structure import Leaf


def read_program_file(path: Path, *, name: str = "") -> Program:
    """The program of a file. Pickled example inputs, if it has any, are left alone.

    The program of one of our packages starts from the state that was saved with it, as the package
    itself does.

    :raises PackageError: damaged or hostile file, or weights that are pickles.
    :raises CaptureError: inputs or results that are no tensors and no plain containers of them.
    """
    archive = Archive.open(path)
    if not is_hardpoint_package(archive):
        return from_exported(read_program(archive), name or path.stem)
    contents = read_contents(archive, check_manifest(archive))
    exported = read_program(archive)
    with refusing(path):
        _restore(exported, contents.held)
    return Program(exported, contents.signature, contents.examples, name or contents.name)


def _restore(exported: ExportedProgram, held: Mapping[str, torch.Tensor]) -> None:
    """Put the saved state and weights into ``exported``, by their names."""
    for name, saved in held.items():
        tensors = exported.state_dict if name in exported.state_dict else exported.constants
        before = tensors.get(name)
        if (
            not isinstance(before, torch.Tensor)
            or before.shape != saved.shape
            or before.dtype != saved.dtype
        ):
            raise MalformedError(f"its state {name!r:.100} does not fit its program")
        value = saved.clone().to(before.device)
        if isinstance(before, torch.nn.Parameter):
            value = torch.nn.Parameter(value, before.requires_grad)
        tensors[name] = value


def from_exported(exported: ExportedProgram, name: str) -> Program:
    """Capture anybody's export again, so that it is flat, functional and described by us.

    :raises CaptureError: see :func:`read_program_file`.
    """
    call = exported.module_call_graph[0].signature
    if call is None:
        raise CaptureError(f"{name} does not say how it is called", remedy="export it again")
    values: list[Any] = []
    specs: list[dict[int, str] | None] = []
    fakes = {n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        if isinstance(spec.arg, ConstantArgument):
            values.append(spec.arg.value)
            specs.append(None)
            continue
        fake = fakes[spec.arg.name]
        if not isinstance(fake, torch.Tensor):
            raise CaptureError(
                f"input {spec.arg.name!r} of {name} is no tensor",
                remedy="export the model with a 0-d tensor in its place",
            )
        values.append(_example(fake))
        specs.append(_dynamic(fake, len(specs)))
    args, kwargs = pytree.tree_unflatten(values, call.in_spec)
    arg_specs, kwarg_specs = pytree.tree_unflatten(specs, call.in_spec)
    module = exported.module(check_guards=False)
    module.training = False  # an export has no modes, and forbids eval()
    names = list(inspect.signature(module.forward).parameters)
    dynamic = {**dict(zip(names, arg_specs, strict=False)), **kwarg_specs}
    program = capture_module(module, args, kwargs, dynamic=dynamic, name=name)
    ours = _tensors([*args, *kwargs.values()])
    described = zip(ours, program.signature.inputs, strict=True)
    shapes = {id(tensor): spec.shape for tensor, spec in described}
    guards = inherited_guards(
        exported, [shapes.get(id(value), ()) for value in values], program.signature.symbols
    )
    guards = tuple(dict.fromkeys([*program.signature.guards, *guards]))
    return replace(program, signature=replace(program.signature, guards=guards))


def _tensors(arguments: list[object]) -> list[torch.Tensor]:
    """The tensors of a call in the order in which a capture numbers them."""
    found: list[torch.Tensor] = []

    def leaf(value: object, path: str) -> Leaf | None:
        if not isinstance(value, torch.Tensor):
            return None
        found.append(value)
        return Leaf(len(found) - 1)

    structure.flatten(arguments, leaf)
    return found


def _dynamic(fake: torch.Tensor, index: int) -> dict[int, str]:
    """Names of its dynamic sizes; the export's symbols, so that equal sizes have equal names."""
    names: dict[int, str] = {}
    for dim, size in enumerate(fake.shape):
        if not isinstance(size, int):
            expr = size.node.expr
            names[dim] = str(expr) if expr.is_Symbol else f"size_{index}_{dim}"
    return names


def _example(fake: torch.Tensor) -> torch.Tensor:
    """A real tensor like ``fake``: normal floats, zero integers (a valid index)."""
    shape = [size if isinstance(size, int) else int(size.node.hint) for size in fake.shape]
    if fake.dtype.is_floating_point or fake.dtype.is_complex:
        generator = torch.Generator().manual_seed(0)
        real = torch.randn(shape, generator=generator, dtype=torch.float32)
        return real.to(fake.dtype).to(fake.device)
    return torch.zeros(shape, dtype=fake.dtype, device=fake.device)
