"""A ``.pt2`` file as a program: one of our packages, or what ``torch.export.save`` wrote."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind
from torch.utils import _pytree as pytree

from hardpoint.errors import CaptureError
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import check_manifest, is_hardpoint_package
from hardpoint.package.pt2 import read_program, tensor_from_ref
from hardpoint.program import signature as signatures
from hardpoint.program.capture import capture_module
from hardpoint.program.program import Program

# Sizes below this are what torch.export assumes anyway of a dynamic dimension.
LEAST = 2


def read_program_file(path: Path, *, name: str = "") -> Program:
    """The program of a file. Pickled example inputs, if it has any, are left alone.

    :raises PackageError: damaged or hostile file, or weights that are pickles.
    :raises CaptureError: inputs or results that are no tensors and no plain containers of them.
    """
    archive = Archive.open(path)
    if not is_hardpoint_package(archive):
        return from_exported(read_program(archive), name or path.stem)
    manifest = check_manifest(archive)
    refs = manifest["examples"]["inputs"]
    return Program(
        read_program(archive),
        signatures.from_json(manifest["signature"]),
        tuple(tensor_from_ref(archive, ref) for ref in refs),
        name or str(manifest["name"]),
    )


def from_exported(exported: ExportedProgram, name: str) -> Program:
    """Capture anybody's export again, so that it is flat, functional and described by us.

    :raises CaptureError: see :func:`read_program_file`.
    """
    call = exported.module_call_graph[0].signature
    if call is None:
        raise CaptureError(f"{name} does not say how it is called", remedy="export it again")
    values: list[Any] = []
    specs: list[dict[int, Any] | None] = []
    dims = _Dims(exported)
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
        specs.append({d: dims.of(size) for d, size in enumerate(fake.shape)})
    args, kwargs = pytree.tree_unflatten(values, call.in_spec)
    arg_specs, kwarg_specs = pytree.tree_unflatten(specs, call.in_spec)
    module = exported.module(check_guards=False)
    module.training = False  # an export has no modes, and forbids eval()
    names = list(inspect.signature(module.forward).parameters)
    dynamic = {**dict(zip(names, arg_specs, strict=False)), **kwarg_specs}
    return capture_module(module, args, kwargs, dynamic=dynamic, name=name)


class _Dims:
    """One ``torch.export.Dim`` for each symbol of an export, with its range."""

    def __init__(self, exported: ExportedProgram) -> None:
        self._ranges = {str(s): r for s, r in exported.range_constraints.items()}
        self._made: dict[str, Any] = {}

    def of(self, size: int | torch.SymInt) -> Any:
        """``None`` for a fixed size, a named ``Dim`` for a symbol, ``AUTO`` for an expression."""
        if isinstance(size, int):
            return None
        if not size.node.expr.is_Symbol:
            return Dim.AUTO
        symbol = str(size.node.expr)
        if symbol not in self._made:
            bounds: dict[str, int] = {}
            found = self._ranges.get(symbol)
            if found is not None and found.lower.is_Integer and int(found.lower) > LEAST:
                bounds["min"] = int(found.lower)
            if found is not None and found.upper.is_Integer and int(found.upper) < 2**31:
                bounds["max"] = int(found.upper)
            self._made[symbol] = Dim(symbol, **bounds)
        return self._made[symbol]


def _example(fake: torch.Tensor) -> torch.Tensor:
    """A real tensor like ``fake``: normal floats, zero integers (a valid index)."""
    shape = [size if isinstance(size, int) else int(size.node.hint) for size in fake.shape]
    if fake.dtype.is_floating_point or fake.dtype.is_complex:
        generator = torch.Generator().manual_seed(0)
        real = torch.randn(shape, generator=generator, dtype=torch.float32)
        return real.to(fake.dtype).to(fake.device)
    return torch.zeros(shape, dtype=fake.dtype, device=fake.device)
