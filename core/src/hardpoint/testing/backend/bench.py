"""Where the checks put a backend to work: through the core's own planner and compiler."""

from __future__ import annotations

import json
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hardpoint.compiler.compile import compile_plan
from hardpoint.compiler.segment import compile_segment
from hardpoint.compiler.verify import DEFAULT_MAX_ERROR
from hardpoint.errors import HardpointError
from hardpoint.interfaces.backend import Backend, Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import TargetInfo
from hardpoint.planning.devices import find_device
from hardpoint.planning.graph import compute_nodes, is_compute
from hardpoint.planning.plan import Plan
from hardpoint.planning.planner import candidate, plan_program
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel
from hardpoint.runtime.step import OpenedSegment
from hardpoint.testing.backend.host import NAME as HOST, Host
from hardpoint.testing.backend.judge import agree, kind
from hardpoint.testing.backend.small import LAYERS, UNARY, Small, floats, together, turned
from hardpoint.testing.backend.split import FirstFit
from hardpoint.testing.check import expect, fail
from hardpoint.testing.subject import Subject

Tensors = Sequence[torch.Tensor]
_BENCHES: weakref.WeakKeyDictionary[Subject, Bench] = weakref.WeakKeyDictionary()


def bench_of(subject: Subject) -> Bench:
    """The subject's bench, the same for all checks; skips the check where it is unavailable."""
    subject.require_available()
    if subject not in _BENCHES:
        _BENCHES[subject] = Bench(subject)
    return _BENCHES[subject]


class Bench:
    """A backend as its settings want it, and the kit's host beside it.

    :param limit: greatest accepted error of its precision.
    """

    def __init__(self, subject: Subject) -> None:
        self.key, self.name, self.registry = subject.key, subject.name, subject.registry
        self.info = subject.info
        self.config, self.options = subject.settings.config, subject.settings.options
        self.precision: Precision = subject.precision
        self.limit = DEFAULT_MAX_ERROR[self.precision]
        if HOST not in self.registry.names("backend"):
            self.registry.add("backend", HOST, Host())
        self.device = find_device(self.registry, Target(self.name))
        self.kept: dict[str, Any] = {}  # what one check prepares and another can use
        self._package = b""

    def open(self) -> Backend:
        """The backend, opened once more."""
        return self.registry.open("backend", self.name)

    def answer(self, program: Program) -> TargetInfo:
        """What it says of each node of ``program``, checked by the core."""
        return candidate(program, Target(self.name), self.registry)

    def refusal(self, program: Program) -> str:
        """Why it does not claim all of ``program``, or ``""``."""
        reasons = Counter(self.answer(program).support.unsupported.values())
        count = len(compute_nodes(program.exported))
        first = "; ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
        return f"{reasons.total()} of {count} nodes: {first}" if reasons else ""

    def claimed(
        self,
        group: Mapping[str, Small],
        examples: Sequence[torch.Tensor],
        *,
        dynamic: bool = False,
    ) -> Ready:
        """What it claims of a group of small programs, as one program.

        Skips the check, with the backend's reasons, where it claims none.
        """
        parts = list(group.values())
        reasons: Mapping[str, str] = {}
        while parts:
            small = together(parts)
            program = self._captured(small, examples, dynamic=dynamic)
            support = self.answer(program).support
            if not support.unsupported:
                return Ready(self, small, parts, program)
            reasons = reasons or support.unsupported
            made = _made_by(program, [len(part.eager(examples)) for part in parts])
            pairs = zip(parts, made, strict=True)
            left = [part for part, nodes in pairs if nodes <= support.supported]
            parts = left if len(left) < len(parts) else []
        few = "; ".join(dict.fromkeys(reasons.values()))
        pytest.skip(f"it claims none of the small programs for this: {few[:400]}")

    def _captured(
        self, small: Small, examples: Sequence[torch.Tensor], *, dynamic: bool
    ) -> Program:
        key = f"{small.name} of {', '.join(map(kind, examples))}{' dynamic' * dynamic}"
        if key not in self.kept:
            self.kept[key] = small.program(examples, dynamic=dynamic)
        found: Program = self.kept[key]
        return found

    def plan(self, program: Program, split: FirstFit | None = None) -> Plan:
        """All of ``program`` on the backend; with ``split``, the rest on the host."""
        targets = [self.name] if split is None else [self.name, HOST]
        return plan_program(
            program, registry=self.registry, targets=targets, partitioner=split or FirstFit()
        )

    def model(self, plan: Plan) -> CompiledModel:
        """``plan`` compiled, its numbers compared with eager's by the core."""
        options = {self.name: self.options} if Target(self.name) in plan.targets else None
        return compile_plan(
            plan, registry=self.registry, precision={self.name: self.precision}, options=options
        )

    def call(self, opened: OpenedSegment, inputs: Tensors) -> tuple[torch.Tensor, ...]:
        """Call a segment as the runtime does, with inputs on its device."""
        with torch.no_grad():
            return opened.call(moves=False)(*self.placed(inputs))

    def placed(self, inputs: Tensors) -> list[torch.Tensor]:
        """Inputs where an executable wants them; what is there already is not copied."""
        return [t.to(self.device.torch_device) for t in inputs]

    @contextmanager
    def job(self) -> Iterator[str]:
        """For a process of its own: see :mod:`hardpoint.testing.fresh`."""
        examples = floats(8, 8)
        ready = self.claimed({**LAYERS, **UNARY}, examples)
        inputs = [turned(examples[:1], by) for by in range(8)]
        with tempfile.TemporaryDirectory(prefix="hardpoint-kit-") as folder:
            package, tensors = Path(folder, "small.pt2"), Path(folder, "tensors.pt")
            if not self._package:
                made = self.model(self.plan(ready.program))
                self._package = made.save(package).read_bytes()
                made.close()
            package.write_bytes(self._package)
            expected = [ready.small.eager(given) for given in inputs]
            torch.save({"inputs": inputs, "expected": expected}, tensors)
            yield json.dumps(
                {
                    "package": str(package),
                    "tensors": str(tensors),
                    "provider": self.key,
                    "config": dict(self.config),
                    "limit": self.limit,
                }
            )


@dataclass(frozen=True)
class Ready:
    """Small programs that the backend claims, as one.

    :param parts: what they are, in the order of the results.
    """

    bench: Bench
    small: Small
    parts: Sequence[Small]
    program: Program

    @contextmanager
    def opened(self, *, isolate: bool = False) -> Iterator[OpenedSegment]:
        """Compiled and opened, not called yet."""
        bench, program = self.bench, self.program
        plan = bench.plan(program)
        if len(plan.segments) != 1:
            fail(f"the kit's program {self.small.name!r} came out in {len(plan.segments)} segments")
        try:
            made = compile_segment(
                plan.segments[0], bench.registry, bench.precision, program.example_inputs,
                bench.options, isolate=isolate, timeout=300 if isolate else None,
            )  # fmt: skip
        except HardpointError as error:
            fail(f"support() claims all of {self.small.name!r}, and it does not compile: {error}")
        try:
            yield made
        finally:
            made.executable.close()

    def call(self, opened: OpenedSegment, inputs: Tensors) -> tuple[torch.Tensor, ...]:
        """Call it as the runtime does."""
        return self.bench.call(opened, inputs[: self.small.inputs])

    def judge(self, got: Tensors, inputs: Tensors, situation: str) -> None:
        """Compare what a call gave with eager's; a message names the part, not all of them."""
        at = 0
        for part in self.parts:
            right = part.eager(inputs)
            given = got[at : at + len(right)]
            agree(given, right, self.bench.limit, f"{part.name!r} {situation}")
            at += len(right)
        expect(at == len(got), f"{self.small.name!r} gave {len(got)} results instead of {at}")

    def placed(self, inputs: Tensors) -> list[torch.Tensor]:
        """As many as the program takes, on the device: what a call gets is these very tensors."""
        return self.bench.placed(inputs[: self.small.inputs])


def _made_by(program: Program, counts: Sequence[int]) -> list[set[str]]:
    """The compute nodes behind the first so many results, behind the next so many, and so on."""
    nodes = {n.name: n for n in program.exported.graph.nodes}
    outputs = iter(program.exported.graph_signature.user_outputs)
    found = []
    for count in counts:
        todo = [nodes[str(next(outputs))] for _ in range(count)]
        seen = set(todo)
        while todo:
            new = set(todo.pop().all_input_nodes) - seen
            seen |= new
            todo.extend(new)
        found.append({n.name for n in seen if is_compute(n)})
    return found
