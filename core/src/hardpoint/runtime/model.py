"""A compiled model: checks a call, runs the segments in order, writes mutations back."""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from hardpoint.errors import HardpointWarning, InputError
from hardpoint.events import Event
from hardpoint.program import dims
from hardpoint.program.signature import Signature
from hardpoint.runtime.check import InputCheck, Key
from hardpoint.runtime.faults import fell_back_in_words
from hardpoint.runtime.memory import refuse_overlaps, write_back
from hardpoint.runtime.rebuild import rebuilder
from hardpoint.runtime.schedule import Schedule
from hardpoint.runtime.step import OpenedSegment
from hardpoint.runtime.wiring import FaultedError, Watch, Wiring, wrong_result

if TYPE_CHECKING:
    from hardpoint.choosing.choice import Choice
    from hardpoint.numerics import Difference
    from hardpoint.program.program import Program


class ModelFacts(NamedTuple):
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
    choice: Choice | None = None


class Replacement(NamedTuple):
    """What a fallback gives: the segment made anew, and what is known of the model then.

    :param fact: of the ``fell back`` event: who, from where to where, why.
    """

    segment: OpenedSegment
    facts: ModelFacts
    fact: Mapping[str, object]


Fallback = Callable[["CompiledModel", FaultedError], Replacement]


@dataclass(eq=False)
class CompiledModel:
    """What :func:`hardpoint.compile` and :func:`hardpoint.load` give; called like the model.

    Inference only. A program that changes its own state (a cache, a counter) keeps that state in
    this object; such a program runs one call at a time.

    :param current: called before each run; raises where the weights that it was compiled from have
        changed. ``None``: nobody else has them.
    :param fallback: makes a segment anew whose device is lost or whose memory ran out.
    :param fell_back: one entry for each time that a target was left for another, the first first:
        ``segment``, ``from``, ``to``, ``reason`` and more.
    """

    signature: Signature
    schedule: Schedule
    segments: tuple[OpenedSegment, ...]
    held: Mapping[str, torch.Tensor]
    facts: ModelFacts
    emit: Callable[[Event], None]
    write: Callable[[CompiledModel, Path], Path]
    current: Callable[[], None] | None = None
    fallback: Fallback | None = None
    fell_back: tuple[Mapping[str, object], ...] = ()
    _retired: list[weakref.finalize[..., Wiring]] = field(
        init=False, repr=False, default_factory=list
    )

    def __post_init__(self) -> None:
        self._check = InputCheck(self.signature)
        self._lock = threading.Lock() if self.schedule.state_writes else None
        self._falling = threading.Lock()
        self._template: list[torch.Tensor | None] = [None] * self.schedule.slots
        for name, slot in self.schedule.held.items():
            self._template[slot] = self.held[name]
        self._wiring = Wiring(self.schedule, self.signature, self.held, self.segments)
        self._writes = bool(self.schedule.state_writes or self.schedule.input_writes)
        self._written = tuple(index for _, index in self.schedule.input_writes)
        self._plain = self.signature.plain()
        self._rebuild = rebuilder(self.signature.outputs)

    def __call__(self, *args: object, **kwargs: object) -> object:
        """Call with the model's own arguments; gives the model's own structure of results.

        :raises InputError: unfit arguments, or a value that a backend refuses; nothing is written.
        :raises ProviderFailed: an executable raised; says which segment and backend.
        :raises RuntimeFault: so it did because memory ran out, or its device was lost.
        :raises VerificationError: the weights changed since it was compiled in this process.
        """
        if self._plain and not kwargs and len(args) == self.schedule.inputs:
            inputs: Sequence[object] = args
        else:
            inputs = self.signature.bind(args, kwargs)
        return self._rebuild(self.run(inputs))

    def run(self, inputs: Sequence[object], watch: Watch | None = None) -> list[torch.Tensor]:
        """Flat tensors in, flat tensors out, in the signature's order.

        :param watch: called with each segment, what it took and what it gave.
        """
        key = self._check(inputs)
        if self.current is not None:
            self.current()
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
            while True:
                wiring = self._wiring
                try:
                    if wiring.direct is not None and key is None and watch is None:
                        return list(wiring.direct(inputs))
                    return self._run(wiring, inputs, key, watch)  # type: ignore[arg-type]
                except FaultedError as faulted:
                    self._fall_back(faulted)
                key = self._check(inputs)  # nothing was written: the same call, once more
        finally:
            if grad:
                torch._C._set_grad_enabled(True)

    def _run(
        self, wiring: Wiring, inputs: Sequence[torch.Tensor], key: Key | None, watch: Watch | None
    ) -> list[torch.Tensor]:
        start = 0.0 if key is None else time.perf_counter()
        if self._lock is None:
            results = self._compute(wiring, inputs, key is None, watch)
        else:
            with self._lock:
                results = self._compute(wiring, inputs, key is None, watch)
        if key is not None:
            self._check.remember(key)
            seconds = time.perf_counter() - start
            self.emit(Event("ran", data={"program": self.facts.name, "seconds": seconds}))
        return results

    def _compute(
        self, wiring: Wiring, inputs: Sequence[torch.Tensor], seen: bool, watch: Watch | None
    ) -> list[torch.Tensor]:
        slots = self._template.copy()
        slots[: len(inputs)] = inputs
        wiring.fill(slots, watch)
        results = wiring.results(slots)
        if not seen:
            self._check_results(wiring, inputs, results)
        if not self._writes:
            return results
        schedule = self.schedule
        written = [(v, self.held[name]) for v, name in schedule.state_writes]
        written += [(v, inputs[i]) for v, i in schedule.input_writes]
        if wiring.elsewhere:  # all is at hand before the first is written
            pairs = [(wiring.brought(slots, v, target.device), target) for v, target in written]
        else:
            pairs = [(slots[v], target) for v, target in written]  # type: ignore[misc]
        return write_back(pairs, results)

    def _fall_back(self, faulted: FaultedError) -> None:
        """Put another segment in the place of the one that cannot go on; say so.

        :raises RuntimeFault: there is no fallback, or no target is left.
        """
        if self.fallback is None:
            faulted.give()
        with self._falling:
            before, failed = self._wiring, faulted.segment
            if failed not in before.segments:  # another call has seen to it
                return
            made = self.fallback(self, faulted)
            segments = tuple(made.segment if s is failed else s for s in before.segments)
            self._wiring = Wiring(self.schedule, self.signature, self.held, segments)
            self.segments, self.facts = segments, made.facts
            self.fell_back = (*self.fell_back, made.fact)
            self._check.forget()
            # Other calls may be in it: closed when the last of them lets go of the old wiring.
            closing = weakref.finalize(before, failed.executable.close)
            closing.atexit = False
            self._retired.append(closing)
        self.emit(Event("fell back", failed.provider, made.fact))
        warnings.warn(fell_back_in_words(made.fact), HardpointWarning, stacklevel=4)

    def _check_results(
        self, wiring: Wiring, inputs: Sequence[torch.Tensor], results: Sequence[torch.Tensor]
    ) -> None:
        """The first run with new sizes: results have the dtype and sizes that the program says."""
        sizes: dict[str, int] = {}
        for spec, tensor in zip(self.signature.inputs, inputs, strict=True):
            for want, size in zip(spec.shape, tensor.shape, strict=True):
                if isinstance(want, str):
                    sizes[want] = size
        slots = self.schedule.results
        for slot, spec, result in zip(slots, self.signature.results, results, strict=True):
            try:
                shape = [dims.evaluate(d, sizes) for d in spec.shape]
            except KeyError:  # a size that only the data decides
                shape = list(result.shape)
            dtype = str(result.dtype).removeprefix("torch.")
            if dtype != spec.dtype or list(result.shape) != shape:
                raise wrong_result(
                    wiring.maker(slot),
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
        from hardpoint.numerics import compare

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

    @property
    def choice(self) -> Choice | None:
        """Why it runs where it does, where that was measured: a table to ``print``."""
        return self.facts.choice

    def close(self) -> None:
        """Let go of every executable. The model cannot be called afterwards."""
        for segment in self.segments:
            segment.executable.close()
        for closing in self._retired:  # at most once each
            closing()

    def __str__(self) -> str:
        rows = [f"compiled {self.facts.name}: {self.signature.describe_arguments()}"]
        rows += [f"  {s.id}  {s.target}  {s.artifact.format}" for s in self.segments]
        if self.verification:
            rows.append(f"  verified: max error {float(str(self.verification['max_error'])):.3g}")
        return "\n".join(rows)
