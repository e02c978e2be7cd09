"""Calls with tensors of every size and layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import BINARY, LAYERS, UNARY, floats, turned
from hardpoint.testing.check import check, skip_unless
from hardpoint.testing.subject import Subject

# Elements of a large input; past 2^22, where 32-bit floats no longer count every index.
LARGE = 8 * 2**20
_MATRICES = {**LAYERS, **UNARY, **BINARY}


class SizeChecks:
    """Dynamic, strided, empty, single and large tensors."""

    @check("computes")
    def test_sizes_that_change(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A program with a dynamic size, if it claims one, is right at every size, 1 included."""
        examples = floats(3, 8)
        ready = bench_of(subject).claimed(_MATRICES, examples, dynamic=True)
        sizes = (3, 7, 1, 2, 64, 3)
        figures |= {"programs": [p.name for p in ready.parts], "sizes": sizes}
        with ready.opened() as opened:
            for rows in sizes:
                inputs = turned(examples, rows, rows)
                got = ready.call(opened, inputs)
                ready.judge(got, inputs, f"with {rows} rows, captured with 3 of a dynamic size")

    @check("computes")
    def test_inputs_of_any_strides(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Transposed, stepped, shifted and expanded inputs give the right numbers; where
        ``strided_inputs`` is declared, also without the runtime's copies.
        """
        bench, examples = bench_of(subject), floats(6, 8)
        ready = bench.claimed(_MATRICES, examples)
        figures |= {
            "programs": [p.name for p in ready.parts],
            "given_as_they_are": bench.info.strided_inputs,
        }
        with ready.opened() as opened:
            for name, view in _VIEWS.items():
                inputs = [view(t) for t in turned(examples, 1)]
                got = ready.call(opened, inputs)
                ready.judge(got, inputs, f"with {name} input of strides {inputs[0].stride()}")

    @check("computes")
    def test_empty_tensors(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Tensors without elements, if it claims them, come out with the right shape."""
        inputs = floats(0, 8)
        ready = bench_of(subject).claimed(_MATRICES, inputs)
        figures["programs"] = [p.name for p in ready.parts]
        with ready.opened() as opened:
            ready.judge(ready.call(opened, inputs), inputs, "with inputs of shape [0, 8]")

    @check("computes")
    def test_tensors_without_dimensions(self, subject: Subject, figures: dict[str, Any]) -> None:
        """0-d tensors, if it claims them, stay 0-d and are right."""
        examples = floats()
        ready = bench_of(subject).claimed({**UNARY, **BINARY}, examples)
        figures["programs"] = [p.name for p in ready.parts]
        with ready.opened() as opened:
            for part in (1.0, 0.5, 0.25):
                inputs = [part * t for t in examples]
                ready.judge(ready.call(opened, inputs), inputs, "with 0-d inputs")

    @check("computes")
    def test_large_tensors(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Inputs of eight million elements, or as many as the device's memory holds, are right."""
        bench = bench_of(subject)
        memory = bench.device.memory
        # Two inputs and two results of four bytes an element, and as much again to work in.
        count = LARGE if memory is None else min(LARGE, memory // 32)
        skip_unless(count >= 8, f"the device's memory is {memory} bytes")
        examples = floats(count // 8, 8)
        group = {name: s for name, s in {**UNARY, **BINARY}.items() if name in ("relu", "x + y")}
        ready = bench.claimed(group, examples)
        figures |= {"programs": [p.name for p in ready.parts], "elements": examples[0].numel()}
        inputs = turned(examples, 1)
        with ready.opened() as opened:
            ready.judge(ready.call(opened, inputs), inputs, f"with {count:,} elements")


def _stepped(tensor: torch.Tensor) -> torch.Tensor:
    whole = torch.full((2 * tensor.shape[0], 2 * tensor.shape[1]), 7.0)
    whole[::2, ::2] = tensor
    return whole[::2, ::2]


def _shifted(tensor: torch.Tensor) -> torch.Tensor:
    whole = torch.full((tensor.shape[0] + 1, tensor.shape[1] + 1), 7.0)
    whole[1:, 1:] = tensor
    return whole[1:, 1:]


def _behind(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, but not at the start of its storage."""
    whole = torch.full((tensor.numel() + 5,), 7.0)
    whole[5:] = tensor.flatten()
    return whole[5:].view(tensor.shape)


_VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "a transposed": lambda t: t.t().contiguous().t(),
    "a stepped": _stepped,
    "a shifted": _shifted,
    "an expanded": lambda t: t[:1].expand(t.shape),
    "a contiguous but shifted": _behind,
}
