"""Whose memory inputs and results are."""

from __future__ import annotations

from typing import Any

import torch

from hardpoint.testing.backend.bench import bench_of
from hardpoint.testing.backend.small import BINARY, LAYERS, SEVERAL, UNARY, floats, turned
from hardpoint.testing.check import check, expect
from hardpoint.testing.subject import Subject

_ANY = {**LAYERS, **UNARY, **BINARY}


class MemoryChecks:
    """Aliasing of inputs and results."""

    @check("computes")
    def test_inputs_stay_unchanged(self, subject: Subject, figures: dict[str, Any]) -> None:
        """A call changes no bit of its inputs."""
        ready = bench_of(subject).claimed(_ANY, floats(6, 8))
        figures["programs"] = [p.name for p in ready.parts]
        inputs = ready.placed(floats(6, 8))
        before = [t.clone() for t in inputs]
        with ready.opened() as opened:
            ready.call(opened, inputs)
        for i, (now, was) in enumerate(zip(inputs, before, strict=True)):
            expect(
                torch.equal(now, was),
                f"a call of {ready.small.name!r} changes its input {i}: a segment must not write "
                "to its inputs",
            )

    @check("computes")
    def test_results_have_their_own_memory(self, subject: Subject) -> None:
        """Results share no memory with inputs, weights or each other where eager's do not."""
        ready = bench_of(subject).claimed(_ANY, floats(6, 8))
        inputs = ready.placed(floats(6, 8))
        with ready.opened() as opened:
            results = ready.call(opened, inputs)
            taken = {f"input {i}": t for i, t in enumerate(inputs)}
            taken |= {f"weight {name!r}": t for name, t in opened.artifact.weights.items()}
            for part, result in zip(ready.parts, results, strict=True):
                for owner, tensor in taken.items():
                    expect(
                        not _overlap(result, tensor),
                        f"the result of {part.name!r} lies in the memory of {owner}: whoever "
                        "writes to the one changes the other",
                    )
                taken[f"the result of {part.name!r}"] = result

    @check("computes")
    def test_results_outlive_the_next_call(self, subject: Subject) -> None:
        """What a call gave, and what came of it to the CPU, outlasts the next calls unchanged."""
        examples = floats(6, 8)
        ready = bench_of(subject).claimed(_ANY, examples)
        with ready.opened() as opened:
            first = ready.call(opened, ready.placed(examples))
            copies = [t.clone() for t in first]
            at_home = [opened.to_cpu(t) for t in first]
            for by in (1, 2, 3):
                for result in ready.call(opened, ready.placed(turned(examples, by))):
                    opened.to_cpu(result)
            for part, now, was in zip(ready.parts, first, copies, strict=True):
                expect(
                    torch.equal(now, was),
                    f"the result of {part.name!r} from the first call changes during later calls; "
                    "the contract says: outputs stay valid after the next call",
                )
            for part, brought, was in zip(ready.parts, at_home, copies, strict=True):
                expect(
                    torch.equal(brought, was.cpu()),
                    f"the result of {part.name!r}, brought to the CPU by to_cpu(), is another, or "
                    "changes during later calls",
                )

    @check("computes")
    def test_one_tensor_passed_twice(self, subject: Subject) -> None:
        """One tensor as both inputs, and two that overlap, give what copies of them would."""
        [rows, _] = floats(7, 8)
        ready = bench_of(subject).claimed(BINARY, [rows[:6], rows[1:]])
        whole = rows.to(ready.bench.device.torch_device)
        same = whole[:6]
        with ready.opened() as opened:
            for what, inputs in {
                "with one tensor as both inputs": [same, same],
                "with inputs that overlap": [same, whole[1:]],
            }.items():
                ready.judge(ready.call(opened, inputs), inputs, what)

    @check("computes")
    def test_several_results(self, subject: Subject) -> None:
        """Several results come out each and in order, also where two of them are equal."""
        examples = floats(6, 8)
        ready = bench_of(subject).claimed(SEVERAL, examples)
        with ready.opened() as opened:
            got = ready.call(opened, ready.placed(examples))
        ready.judge(got, examples, "with several results")


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two dense tensors have bytes in common."""
    if one.device != other.device or not one.numel() or not other.numel():
        return False
    return one.data_ptr() < _end(other) and other.data_ptr() < _end(one)


def _end(tensor: torch.Tensor) -> int:
    last = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()
