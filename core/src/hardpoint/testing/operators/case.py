"""From a sample of the database to a program, with what eager PyTorch gives for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.export.graph_signature import OutputKind

from hardpoint.compiler.verify import reference_values
from hardpoint.errors import HardpointError
from hardpoint.numerics import compare
from hardpoint.planning.graph import compute_nodes, is_random
from hardpoint.program.capture import capture_module
from hardpoint.program.program import MUTATIONS, Program, lifted_inputs
from hardpoint.testing.operators.database import Sample
from hardpoint.testing.operators.judge import tolerance


class NotTestable(Exception):  # noqa: N818 - it is no error of anybody
    """A sample that says nothing about a backend; ``state`` and the text say why."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__(reason)
        self.state = state


@dataclass(frozen=True, eq=False)
class Prepared:
    """A program of one operator.

    :param inputs: what it is called with. :param results: names of its results, in order.
    :param values: every value of the program in eager PyTorch, by name.
    """

    program: Program
    inputs: tuple[torch.Tensor, ...]
    results: tuple[str, ...]
    values: dict[str, torch.Tensor]

    def describe(self) -> str:
        """``float32[5, 3], int64[]``: what it was called with."""
        return ", ".join(
            f"{str(t.dtype).removeprefix('torch.')}{list(t.shape)}" for t in self.inputs
        )


def prepare(sample: Sample, name: str) -> Prepared:
    """Capture the call as a user's model is captured, and run it in eager PyTorch.

    :raises NotTestable: eager PyTorch fails on it, the exporter cannot capture it or changes its
        result, or it is of a sort that the kit leaves out.
    """
    strange = [t for t in sample.tensors if t.layout is not torch.strided]
    if strange:
        raise NotTestable("left_out", f"it takes a tensor of layout {strange[0].layout}")
    with torch.no_grad():
        try:
            expected = sample.call(*[t.clone() for t in sample.tensors])
        except Exception as error:
            raise NotTestable("left_out", f"eager PyTorch: {_first_line(error)}") from error
    if not expected or any(t.layout is not torch.strided for t in expected):
        raise NotTestable("left_out", "it gives no dense tensor")
    program = _capture(sample, name)
    _check_kind(program)
    specs = program.exported.graph_signature.output_specs
    results = tuple(s.arg.name for s in specs if s.kind is OutputKind.USER_OUTPUT)
    names = [s.arg.name for s in program.exported.graph_signature.input_specs]
    given = [t.clone() for t in lifted_inputs(program.exported, program.example_inputs)]
    try:
        values = dict(reference_values(program, program.example_inputs))
    except HardpointError as error:
        raise NotTestable("not_exportable", f"the exported program: {error.cause}") from error
    for name, before in zip(names, given, strict=True):
        if compare(values[name], before).error != 0:  # aten.instance_norm, in training
            raise NotTestable("left_out", "it writes into its inputs though its schema denies it")
    limit = tolerance("fp32", [*sample.tensors, *expected])
    for result, want in zip(results, expected, strict=True):
        if not compare(values[result], want).error <= limit:
            raise NotTestable(
                "not_exportable", "torch.export gives a program with another result than eager's"
            )
    return Prepared(program, program.example_inputs, results, values)


def run_again(prepared: Prepared, inputs: Sequence[torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Every value of the program for other inputs; ``None`` where eager PyTorch refuses them."""
    try:
        return dict(reference_values(prepared.program, inputs))
    except HardpointError:
        return None


def digest(sample: Sample) -> str:
    """A hash of what goes into the call."""
    sha = hashlib.sha256(repr([_stable(c) for c in sample.constants]).encode())
    for tensor in sample.tensors:
        sha.update(f"{tensor.dtype}{list(tensor.shape)}{tensor.layout}".encode())
        if tensor.layout is torch.strided:
            sha.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()[:32]


class _Call(torch.nn.Module):
    """A model that calls the operator once."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self._call = sample.call
        self._held = sorted(sample.held)
        for place in self._held:
            self.register_buffer(f"weight{place}", sample.tensors[place])

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = list(inputs)
        for place in self._held:  # in order, so that each finds its place
            tensors.insert(place, self.get_buffer(f"weight{place}"))
        return self._call(*tensors)


def _capture(sample: Sample, name: str) -> Program:
    try:
        inputs = [t for i, t in enumerate(sample.tensors) if i not in sample.held]
        return capture_module(_Call(sample).eval(), inputs, name=name)
    except HardpointError as error:
        cause = (error.cause or error.what).strip().splitlines()[0]
        raise NotTestable("not_exportable", cause[:300]) from error


def _check_kind(program: Program) -> None:
    exported = program.exported
    nodes = compute_nodes(exported)
    if not nodes:
        raise NotTestable("left_out", "nothing is computed")
    if any(is_random(node) for node in nodes):
        raise NotTestable("left_out", "it draws random numbers")
    if any(spec.kind in MUTATIONS for spec in exported.graph_signature.output_specs):
        raise NotTestable("left_out", "it writes into its inputs")
    for node in nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
            raise NotTestable("left_out", f"{target} is no operator of ATen")


def _stable(value: object) -> str:
    """Without the addresses that the representation of an object may hold."""
    plain = (bool, int, float, complex, str, bytes, torch.dtype, torch.device, torch.Size, slice)
    return repr(value) if value is None or isinstance(value, plain) else type(value).__qualname__


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]
