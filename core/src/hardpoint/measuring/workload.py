"""What all children of one measurement read: the program; and how the inputs are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from hardpoint.compiler.examples import make_examples
from hardpoint.errors import InputError
from hardpoint.measuring.eager import Eager
from hardpoint.measuring.inputs import JOB, Inputs
from hardpoint.package.archive import Archive
from hardpoint.package.tensors import TensorStore, tensor_from_ref
from hardpoint.package.writer import ArchiveWriter
from hardpoint.planning.graph import compute_nodes, is_random
from hardpoint.program import dims, signature as signatures
from hardpoint.program.program import Program

PROGRAM = "program.pt2"


def write_program_file(program: Program, path: Path) -> None:
    """``program`` with its examples, as :func:`read_program_file` takes it."""
    from hardpoint.package.pt2 import write_program

    with ArchiveWriter(path) as writer:
        store = TensorStore(writer)
        write_program(writer, program.exported, store=store)
        described = {
            "name": program.name,
            "signature": program.signature.to_json(),
            "examples": [store.put(t) for t in program.example_inputs],
            "check": [store.put(t) for t in program.check_inputs],
        }
        writer.add(JOB, json.dumps(described).encode())


def read_program_file(path: Path) -> Program:
    """What :func:`write_program_file` wrote."""
    from hardpoint.package.pt2 import read_program

    archive = Archive.open(path)
    described = archive.read_json(JOB)

    def tensors(key: str) -> tuple[torch.Tensor, ...]:
        return tuple(tensor_from_ref(archive, ref).clone() for ref in described[key])

    return Program(
        read_program(archive),
        signatures.from_json(described["signature"]),
        tensors("examples"),
        described["name"],
        tensors("check"),
    )


def make_inputs(program: Program, batch: int | None = None) -> Inputs:
    """What a program is measured on, or what that becomes at ``batch`` samples; eager's results.

    :raises InputError: the batch size is fixed, or out of the program's range.
    """
    examples = measured_on(program)
    inputs = examples if batch is None else at_batch(program, examples, batch)
    draws = any(is_random(n) for n in compute_nodes(program.exported))
    expected = [] if draws else Eager(program)([t.clone() for t in inputs])
    return Inputs(
        tuple(t.detach().clone() for t in inputs),
        tuple(t.detach() for t in expected),
        tuple(spec.name for spec in program.signature.results),
        samples(inputs),
    )


def measured_on(program: Program) -> tuple[torch.Tensor, ...]:
    """The inputs that are held out, else the examples, else some that are made up."""
    return program.check_inputs or program.example_inputs or tuple(make_examples(program.signature))


def samples(inputs: Sequence[torch.Tensor]) -> int:
    """Samples in one call: the first size of the first input that has rows, else 1."""
    return next((t.shape[0] for t in inputs if t.dim() > 1), 1)


def at_batch(
    program: Program, examples: Sequence[torch.Tensor], batch: int
) -> tuple[torch.Tensor, ...]:
    """``examples`` repeated or cut to ``batch`` samples: real values, other sizes.

    The batch is the first dimension of the first input that has rows; it must be dynamic.

    :raises InputError: it is fixed, or ``batch`` is out of its range.
    """
    signature = program.signature
    pairs = zip(signature.inputs, examples, strict=True)
    spec = next((spec for spec, tensor in pairs if tensor.dim() > 1), None)
    symbol = None if spec is None else spec.shape[0]
    if not isinstance(symbol, str):
        have = "no input has rows" if spec is None else f"{spec} has a fixed first size"
        raise InputError(
            f"{program.name} cannot be run at batch {batch}", cause=have,
            remedy="capture it with that size dynamic: dynamic={'x': {0: 'batch'}}, or on the "
            "command line --dynamic x.0=batch",
        )  # fmt: skip
    least, most = signature.symbols[symbol]
    if batch < least or (most is not None and batch > most):
        raise InputError(
            f"{program.name} cannot be run at batch {batch}",
            cause=f"{symbol} must be at least {least}" + (f" and at most {most}" if most else ""),
            remedy="choose another batch, or capture with another range",
        )
    sizes = {symbol: batch}
    for described, tensor in zip(signature.inputs, examples, strict=True):
        for want, size in zip(described.shape, tensor.shape, strict=True):
            if isinstance(want, str):
                sizes.setdefault(want, size)
    scaled = []
    for described, tensor in zip(signature.inputs, examples, strict=True):
        for dim, want in enumerate(described.shape):
            size = dims.evaluate(want, sizes)
            if size != tensor.shape[dim]:
                rows = torch.arange(size) % max(1, tensor.shape[dim])
                tensor = tensor.index_select(dim, rows.to(tensor.device))
        scaled.append(tensor)
    return tuple(scaled)
