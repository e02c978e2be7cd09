"""A compiled model: checks a call, runs the segments in order, writes mutations back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hardpoint.errors import ContractViolation, InputError
from hardpoint.events import Event
from hardpoint.numerics import Difference, compare
from hardpoint.program import dims, structure
from hardpoint.program.signature import Signature
from hardpoint.program.structure import Leaf
from hardpoint.runtime.check import InputCheck
from hardpoint.runtime.memory import refuse_overlaps, write_back
from hardpoint.runtime.schedule import Schedule
from hardpoint.runtime.step import Call, OpenedSegment

if TYPE_CHECKING:
    from hardpoint.program.program import Program


@dataclass(frozen=True, eq=False)
class ModelFacts:
    """What is known of a compiled model beside how to run it.

    :param name: the program's.
    :param plan: the plan as data (:meth:`hardpoint.Plan.to_json`).
    :param verification: figures of the comparison with eager, or empty.
    :param program: gives the captured program, for saving and for recompiling.
    :param examples: flat inputs that it was verified on.
    :param expected: eager PyTorch's flat results for them; empty where they are random.
    """

    name: str
    plan: Mapping[str, object]
    verification: Mapping[str, object]
    program: Callable[[], Program]
    examples: tuple[torch.Tensor, ...] = ()
    expected: tuple[torch.Tensor, ...] = ()


@dataclass(eq=False)
class CompiledModel:
    """What :func:`hardpoint.compile` and :func:`hardpoint.load` give; called like the model.

    Inference only. A program that changes its own state (a cache, a counter) keeps that state in
    this object; such a program runs one call at a time.
    """

    signature: Signature
    schedule: Schedule
    segments: tuple[OpenedSegment, ...]
    held: Mapping[str, torch.Tensor]
    facts: ModelFacts
    emit: Callable[[Event], None]
    write: Callable[[CompiledModel, Path], Path]
    _steps: list[tuple[Call, tuple[int, ...], tuple[int, ...], tuple[int, ...], OpenedSegment]] = (
        field(init=False, repr=False)
    )

    def __post_init__(self) -> None:
        by_id = {s.id: s for s in self.segments}
        self._check = InputCheck(self.signature)
        self._lock = threading.Lock() if self.schedule.state_writes else None
        self._template: list[torch.Tensor | None] = [None] * self.schedule.slots
        for name, slot in self.schedule.held.items():
            self._template[slot] = self.held[name]
        moves = self._moving_steps(by_id)
        self._steps = [
            (
                by_id[s.segment].call(s.segment in moves),
                s.inputs,
                s.outputs,
                s.frees,
                by_id[s.segment],
            )
            for s in self.schedule.steps
        ]
        self._writes = bool(self.schedule.state_writes or self.schedule.input_writes)
        self._written = tuple(index for _, index in self.schedule.input_writes)
        self._plain = self.signature.plain()
        self._elsewhere = any(s.device.torch_device != "cpu" for s in self.segments)
        self._direct = self._direct_call()

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call with the model's own arguments; gives the model's own structure of results.

        :raises InputError: arguments that do not fit the signature; nothing has run then.
        :raises ProviderFailed: an executable raised; says which segment and backend.
        :raises RuntimeFault: so it did because memory ran out, or its device was lost.
        """
        if self._plain and not kwargs and len(args) == self.schedule.inputs:
            inputs: Sequence[object] = args
        else:
            inputs = self.signature.bind(args, kwargs)
        results = self.run(inputs)
        outputs = self.signature.outputs
        if type(outputs) is Leaf and not outputs.scalar:
            return results[outputs.index]
        return structure.unflatten(
            outputs, lambda leaf: results[leaf.index].item() if leaf.scalar else results[leaf.index]
        )

    def run(self, inputs: Sequence[object]) -> list[torch.Tensor]:
        """Flat tensors in, flat tensors out, in the signature's order."""
        key = self._check(inputs)
        start = 0.0 if key is None else time.perf_counter()
        if self.schedule.input_writes:
            refuse_overlaps(self.signature, inputs, self._written)  # type: ignore[arg-type]
        grad = torch.is_grad_enabled()
        if grad:
            for spec, tensor in zip(self.signature.inputs, inputs, strict=True):
                if tensor.requires_grad:  # type: ignore[attr-defined]
                    raise InputError(
                        f"input {spec.name} requires grad; a compiled model does inference only",
                        remedy="call it under torch.no_grad(), or pass .detach()",
                    )
            torch._C._set_grad_enabled(False)
        try:
            if self._direct is not None and key is None:
                return list(self._direct(inputs))
            if self._lock is None:
                results = self._run(inputs, key is None)  # type: ignore[arg-type]
            else:
                with self._lock:
                    results = self._run(inputs, key is None)  # type: ignore[arg-type]
            if key is not None:
                self._check.remember(key)
                seconds = time.perf_counter() - start
                self.emit(Event("ran", data={"program": self.facts.name, "seconds": seconds}))
            return results
        finally:
            if grad:
                torch._C._set_grad_enabled(True)

    def _run(self, inputs: Sequence[torch.Tensor], seen: bool) -> list[torch.Tensor]:
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        for call, reads, writes, frees, segment in self._steps:
            try:
                values = call(*[slots[i] for i in reads])
            except Exception as error:
                failure = segment.failure(error)
                if failure is error:
                    raise
                raise failure from error
            if type(values) is not tuple or len(values) != len(writes):
                raise _wrong_result(segment, f"{len(writes)} tensors in a tuple were expected")
            for slot, value in zip(writes, values, strict=True):
                slots[slot] = value
            for slot in frees:
                slots[slot] = None
        results = [slots[i] for i in self.schedule.results]
        if self._elsewhere:
            results = [
                r.to(spec.device)  # type: ignore[union-attr]
                for r, spec in zip(results, self.signature.results, strict=True)
            ]
        if not seen:
            self._check_results(inputs, results)  # type: ignore[arg-type]
        if self._writes:
            schedule = self.schedule
            pairs = [(slots[v], self.held[name]) for v, name in schedule.state_writes]
            pairs += [(slots[v], inputs[i]) for v, i in schedule.input_writes]
            return write_back(pairs, results)  # type: ignore[arg-type]
        return results  # type: ignore[return-value]

    def _direct_call(self) -> Callable[[Sequence[object]], tuple[torch.Tensor, ...]] | None:
        """The short way for one segment that takes the inputs and gives the results, unchanged."""
        if len(self._steps) != 1 or self._writes or self._elsewhere:
            return None
        call, reads, writes, _, segment = self._steps[0]
        if reads != tuple(range(self.schedule.inputs)) or writes != self.schedule.results:
            return None

        def direct(inputs: Sequence[object]) -> tuple[torch.Tensor, ...]:
            try:
                return call(*inputs)
            except Exception as error:
                failure = segment.failure(error)
                if failure is error:
                    raise
                raise failure from error

        return direct

    def _moving_steps(self, by_id: Mapping[str, OpenedSegment]) -> set[str]:
        """Segments that read something which lives on another device than theirs."""
        place = {i: spec.device for i, spec in enumerate(self.signature.inputs)}
        place |= {slot: str(self.held[name].device) for name, slot in self.schedule.held.items()}
        moving = set()
        for step in self.schedule.steps:
            device = by_id[step.segment].device.torch_device
            if any(place[slot] != device for slot in step.inputs):
                moving.add(step.segment)
            place |= dict.fromkeys(step.outputs, device)
        return moving

    def _check_results(
        self, inputs: Sequence[torch.Tensor], results: Sequence[torch.Tensor]
    ) -> None:
        """The first run with new sizes: results have the dtype and sizes that the program says."""
        sizes: dict[str, int] = {}
        for spec, tensor in zip(self.signature.inputs, inputs, strict=True):
            for want, size in zip(spec.shape, tensor.shape, strict=True):
                if isinstance(want, str):
                    sizes[want] = size
        maker = {slot: step[4] for step in self._steps for slot in step[2]}
        slots = self.schedule.results
        for slot, spec, result in zip(slots, self.signature.results, results, strict=True):
            try:
                shape = [dims.evaluate(d, sizes) for d in spec.shape]
            except KeyError:  # a size that only the data decides
                shape = list(result.shape)
            dtype = str(result.dtype).removeprefix("torch.")
            if dtype != spec.dtype or list(result.shape) != shape:
                raise _wrong_result(
                    maker[slot],
                    f"{spec.name} is {dtype}{list(result.shape)}, it must be {spec.dtype}{shape}",
                )

    def save(self, path: str | Path) -> Path:
        """Write a package: plan, artifacts, weights and program in one PT2 archive, atomically.

        :raises PackageError: it cannot be written.
        """
        return self.write(self, Path(path))

    @contextmanager
    def preserving_state(self) -> Iterator[None]:
        """Undo, at the end, what calls inside change in this model's own state."""
        before = {name: tensor.clone() for name, tensor in self.held.items()}
        try:
            yield
        finally:
            for name, tensor in before.items():
                self.held[name].copy_(tensor)

    def verify(self) -> dict[str, Difference]:
        """Run on the recorded examples and compare with eager's recorded results, by name.

        Tells whether a package gives on this machine what it gave where it was made. Empty where
        the package carries no examples (they were too large, or the results are random).
        """
        if not self.facts.expected:
            return {}
        with self.preserving_state():
            if self.schedule.state_writes:  # the figures were taken from the captured state
                exported = self.facts.program().exported
                captured = {**exported.constants, **exported.state_dict}
                for name, tensor in self.held.items():
                    tensor.copy_(captured[name])
            got = self.run([t.clone() for t in self.facts.examples])
        triples = zip(self.signature.results, got, self.facts.expected, strict=True)
        return {spec.name: compare(value, want) for spec, value, want in triples}

    @property
    def verification(self) -> Mapping[str, object]:
        """Figures of the comparison with eager PyTorch: errors by result and by segment."""
        return self.facts.verification

    def close(self) -> None:
        """Let go of every executable. The model cannot be called afterwards."""
        for segment in self.segments:
            segment.executable.close()

    def __str__(self) -> str:
        rows = [f"compiled {self.facts.name}: {self.signature.describe_arguments()}"]
        rows += [f"  {s.id}  {s.target}  {s.artifact.format}" for s in self.segments]
        if self.verification:
            rows.append(f"  verified: max error {float(str(self.verification['max_error'])):.3g}")
        return "\n".join(rows)


def _wrong_result(segment: OpenedSegment, cause: str) -> ContractViolation:
    return ContractViolation(
        f"segment {segment.id} gave a wrong kind of result on {segment.target}",
        provider=segment.provider,
        origin=segment.origin,
        cause=cause,
        remedy="report it to the plugin's author; `hardpoint check` shows the whole contract",
    )
