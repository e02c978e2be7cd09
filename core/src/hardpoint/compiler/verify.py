"""Compare compiled segments with eager PyTorch, and say where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram

from hardpoint.errors import CompileError, VerificationError
from hardpoint.interfaces.backend import Precision
from hardpoint.numerics import EQUAL, Difference, compare, json_number
from hardpoint.planning.data import Segment
from hardpoint.planning.graph import compute_nodes, is_random
from hardpoint.planning.validate import check_outputs
from hardpoint.program.program import Program
from hardpoint.runtime.step import OpenedSegment

# Accepted where the caller names no limit: rounding of the arithmetic, with room for depth.
DEFAULT_MAX_ERROR: Mapping[Precision, float] = {
    "fp32": 1e-4,
    "bf16": 3e-2,
    "fp16": 1e-2,
    "int8": 1e-1,
    "int8w": 1e-1,
    "int4w": 2e-1,
}

# Where all floating-point values are float64: a runtime that computes in float32 differs by 1e-7.
FLOAT64_MAX_ERROR = 1e-9


def only_float64(program: ExportedProgram) -> bool:
    """Whether ``program`` has float64 values, and no narrower ones that round anyway."""
    values = (n.meta.get("val") for n in program.graph.nodes)
    dtypes = {v.dtype for v in values if isinstance(v, torch.Tensor)}
    floating = {d for d in dtypes if d.is_floating_point or d.is_complex}
    return bool(floating) and floating <= {torch.float64, torch.complex128}


def draws(segment: Segment) -> bool:
    """Whether its results are random, so that there is nothing to compare them with."""
    return any(is_random(n) for n in compute_nodes(segment.program))


def reference_values(
    program: Program, examples: Sequence[torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Every value of ``program`` in eager PyTorch, by name.

    :raises CompileError: the program itself fails on these examples.
    """
    try:
        return program.run([t.clone() for t in examples])
    except Exception as error:
        reason = str(error).partition("\n\nWhile executing")[0]
        raise CompileError(
            f"{program.name} fails on its own examples in eager PyTorch",
            cause=f"{type(error).__name__}: {reason[:600]}",
            remedy="call the model itself with these examples first",
        ) from error


def verify_segment(
    segment: Segment,
    opened: OpenedSegment,
    reference: Mapping[str, torch.Tensor],
    max_error: float,
) -> tuple[Difference, tuple[torch.Tensor, ...]]:
    """Run one segment on reference inputs, compare what it gives, and give that too.

    :raises VerificationError: an error above ``max_error``; names segment, operator and figures.
    :raises ContractViolation: results of a wrong number, shape or dtype.
    """
    device = segment.device.torch_device
    expected = {name: reference[name] for name in segment.outputs}
    try:
        inputs = [reference[name].to(device) for name in segment.inputs]
        before = [t.clone() for t in inputs]
        # As the runtime calls it: with gradients, attention takes another way and other strides.
        with torch.no_grad():
            outputs = opened.call(moves=device != "cpu")(*inputs)
        # An asynchronous device tells of its errors now.
        at_home = outputs if device == "cpu" else _at_home(outputs)
    except Exception as error:
        raise opened.failure(error) from error
    check_outputs(outputs, expected, device, opened.provider, opened.origin)
    for name, was, now in zip(segment.inputs, before, inputs, strict=True):
        if compare(now, was).error != 0:
            raise VerificationError(
                f"segment {segment.id} changes its input {name} on {opened.target}",
                provider=opened.provider, origin=opened.origin,
                remedy="leave that target out, and report it to the plugin's author",
            )  # fmt: skip
    worst = EQUAL
    for (name, want), got in zip(expected.items(), at_home, strict=True):
        difference = compare(got, want)
        if not difference.error <= max_error:
            raise VerificationError(
                f"segment {segment.id} gives wrong numbers on {opened.target}: error "
                f"{difference.error:.3g} in {name}, at most {max_error:.3g} is allowed",
                provider=opened.provider, origin=opened.origin,
                cause=f"cosine {difference.cosine:.6f}, mean error {difference.mean:.3g}; the "
                f"segment runs {_operators(segment)}",
                remedy="leave that target out of targets=, ask for another precision=, or allow "
                "more with max_error=",
            )  # fmt: skip
        if difference.error >= worst.error:
            worst = difference
    return worst, outputs


def _at_home(outputs: object) -> tuple[torch.Tensor, ...]:
    """Copies on the CPU of what is a tensor; whether all are is checked by others."""
    found = outputs if isinstance(outputs, tuple) else ()
    return tuple(t.cpu() if isinstance(t, torch.Tensor) else t for t in found)


def summarize(
    results: Sequence[tuple[str, Difference]],
    max_error: float,
    precision: str,
    shapes: Sequence[Sequence[int]],
) -> dict[str, object]:
    """The figures that go into the package and before the user: JSON-serializable.

    :param precision: as :meth:`hardpoint.compiler.precision.Precisions.in_words` gives it.
    """
    return {
        "max_error": json_number(max((d.error for _, d in results), default=0.0)),
        "allowed": json_number(max_error),
        "precision": precision,
        "inputs": [list(s) for s in shapes],
        "results": {name: d.to_json() for name, d in results},
        "reference": f"eager PyTorch {torch.__version__} on the captured program",
    }


def _operators(segment: Segment) -> str:
    shown = list(segment.operators)[:6]
    more = len(segment.operators) - len(shown)
    return ", ".join(shown) + (f" and {more} more kinds" if more else "")
