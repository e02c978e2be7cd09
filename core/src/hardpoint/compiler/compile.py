"""From a plan to a compiled model, verified against eager PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch.export.graph_signature import OutputKind

from hardpoint.compiler.examples import make_examples
from hardpoint.compiler.executed import executed
from hardpoint.compiler.precision import PrecisionAsked, Precisions, read_precision
from hardpoint.compiler.saving import save_unchanged
from hardpoint.compiler.segment import compile_segment
from hardpoint.compiler.verify import reference_values, summarize, verify_segment
from hardpoint.compiler.wire import wire
from hardpoint.errors import (
    CompileError,
    ConfigError,
    HardpointError,
    VerificationError,
)
from hardpoint.events import Event
from hardpoint.interfaces.backend import PRECISIONS
from hardpoint.interfaces.kinds import Target
from hardpoint.numerics import Difference, compare
from hardpoint.planning.data import Segment
from hardpoint.planning.graph import compute_nodes, is_random
from hardpoint.planning.plan import Plan
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel, ModelFacts
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

Options = Mapping[str, Mapping[str, object]]
# Called with (segments done, segments in all, what is being done).
Progress = Callable[[int, int, str], None]
# Calls of each candidate that `precision="auto"` times; the median counts.
AUTO_CALLS = 7


@dataclass(frozen=True)
class CompileRequest:
    """How to compile.

    :param precisions: what each backend computes in.
    :param max_error: greatest accepted :attr:`Difference.error`; ``None``: by precision.
    :param options: backend name -> its own options.
    :param isolate: compile each segment in a child process.
    :param timeout: seconds that a child may take for one segment.
    """

    precisions: Precisions
    max_error: float | None = None
    options: Options | None = None
    isolate: bool = False
    timeout: float | None = None
    progress: Progress | None = None

    def limit(self, *targets: Target) -> float:
        """The greatest accepted error of what runs on ``targets``."""
        if self.max_error is not None:
            return self.max_error
        return self.precisions.limit(t.backend for t in targets)


def compile_plan(
    plan: Plan,
    *,
    registry: Registry,
    precision: PrecisionAsked = "fp32",
    max_error: float | None = None,
    options: Options | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile every segment of ``plan``, verify it, and tie the result together.

    :param precision: ``"auto"`` compiles every precision that all backends of the plan have and
        takes the fastest on the examples whose error is within ``max_error``. A mapping gives
        each backend its own, e.g. ``{"npu": "fp16"}``; those it does not name compute in fp32.
    :param max_error: see :class:`hardpoint.compiler.verify.Difference`; default by precision.
    :param options: backend name -> its own options, e.g. ``{"cpu": {"mode": "aot"}}``.
    :raises CompileError: a segment cannot be compiled.
    :raises VerificationError: a segment gives other numbers than eager PyTorch.
    """
    if not isinstance(plan, Plan):
        raise CompileError(
            f"compile() takes a plan, got {type(plan).__name__}",
            remedy="plan the program first: hp.compile(hp.plan(program))",
        )
    precisions = read_precision(precision, (c.target.backend for c in plan.candidates))
    unknown = set(options or ()) - {t.backend for t in plan.targets}
    if unknown:
        raise ConfigError(
            f"options name {min(unknown)!r}, which is no backend of this plan",
            remedy=f"the plan uses: {', '.join(str(t) for t in plan.targets)}",
        )
    request = CompileRequest(
        precisions or Precisions(), max_error, options, isolate, timeout, progress
    )
    # State made in inference mode could not be written to outside of it.
    with torch.inference_mode(False):
        compiling = _auto if precisions is None else _compile
        return compiling(plan, registry, request)


def _auto(plan: Plan, registry: Registry, request: CompileRequest) -> CompiledModel:
    """The fastest of the precisions that every backend of the plan has and that verifies."""
    shared = set(PRECISIONS)
    for target in plan.targets:
        shared &= set(registry.info("backend", target.backend).precisions)
    best: CompiledModel | None = None
    best_seconds, refusals = 0.0, []
    for precision in (p for p in PRECISIONS if p in shared):
        try:
            model = _compile(plan, registry, replace(request, precisions=Precisions(precision)))
        except HardpointError as error:
            refusals.append(f"{precision}: {error.what}")
            continue
        seconds = _median_seconds(model, model.facts.examples)
        if best is None or seconds < best_seconds:
            if best is not None:
                best.close()
            best, best_seconds = model, seconds
        else:
            model.close()
    if best is None:
        raise CompileError(
            "no precision compiles and verifies",
            cause="; ".join(refusals) or "the plan's backends share no precision",
            remedy="allow more with max_error=, or choose other targets"
            if refusals
            else "give each backend its own, e.g. precision={'cpu': 'fp32'}",
        )
    facts = replace(best.facts, verification={**best.verification, "refused": refusals})
    best.facts = facts
    return best


def _compile(plan: Plan, registry: Registry, request: CompileRequest) -> CompiledModel:
    program = plan.program
    examples = program.example_inputs or make_examples(program.signature)
    reference = reference_values(program, examples)
    opened: list[OpenedSegment] = []
    errors: dict[str, Difference] = {}
    facts: dict[str, Mapping[str, object]] = {}
    limit = request.limit(*plan.targets)
    precision = request.precisions.in_words(t.backend for t in plan.targets)
    started = time.perf_counter()
    try:
        for i, segment in enumerate(plan.segments):
            where = f"{segment.id} for {segment.target}"
            if request.progress:
                request.progress(i, len(plan.segments), f"compiling {where}")
            inputs = [reference[name] for name in segment.inputs]
            asked = request.precisions.of(segment.target.backend)
            made = compile_segment(
                segment, registry, asked, inputs,
                (request.options or {}).get(segment.target.backend, {}),
                isolate=request.isolate, timeout=request.timeout,
            )  # fmt: skip
            opened.append(made)
            facts[segment.id] = executed(made, asked)
            if request.progress:
                request.progress(i, len(plan.segments), f"verifying {where}")
            if not _draws(segment):
                most = request.limit(segment.target)
                errors[segment.id] = verify_segment(segment, made, reference, most)
        model = _assemble(plan, registry, opened, examples)
        results = _verify_whole(model, program, reference, examples, limit)
    except BaseException:
        for made in opened:
            made.executable.close()
        raise
    if request.progress:
        request.progress(len(plan.segments), len(plan.segments), "verified")
    shapes = [tuple(t.shape) for t in examples]
    figures = summarize(results, errors, limit, precision, shapes)
    figures["executed"] = {name: said for name, said in facts.items() if said}
    random = [s.id for s in plan.segments if _draws(s)]
    if random:
        figures["not_compared"] = f"{', '.join(random)} draw random numbers"
    expected = () if random else _expected(program, reference)
    model.facts = replace(model.facts, verification=figures, expected=expected)
    registry.emit(
        Event("compiled", data={"program": program.name, "precision": precision,
                                "targets": [str(t) for t in plan.targets],
                                "seconds": time.perf_counter() - started,
                                "max_error": figures["max_error"]})
    )  # fmt: skip
    return model


def _assemble(
    plan: Plan,
    registry: Registry,
    opened: Sequence[OpenedSegment],
    examples: Sequence[torch.Tensor],
) -> CompiledModel:
    schedule = wire(plan)
    source = {**plan.program.exported.constants, **plan.program.exported.state_dict}
    # A copy: running the compiled model must not change the captured state.
    held = {name: source[name].detach().clone() for name in schedule.held}
    return CompiledModel(
        signature=plan.program.signature,
        schedule=schedule,
        segments=tuple(opened),
        held=held,
        facts=ModelFacts(
            plan.program.name, plan.to_json(), {}, lambda: plan.program, tuple(examples)
        ),
        emit=registry.emit,
        write=save_unchanged(source),
    )


def _verify_whole(
    model: CompiledModel,
    program: Program,
    reference: Mapping[str, torch.Tensor],
    examples: Sequence[torch.Tensor],
    limit: float,
) -> list[tuple[str, Difference]]:
    """Run the whole model once on the examples; compare results, changed inputs and state."""
    inputs = [t.clone() for t in examples]
    signature = program.exported.graph_signature
    users = list(signature.user_inputs)
    results: list[tuple[str, Difference]] = []
    with model.preserving_state():
        got = iter(zip(program.signature.results, model.run(inputs), strict=True))
        for spec in signature.output_specs:
            if spec.kind is OutputKind.USER_OUTPUT:
                described, value = next(got)
                label = described.name
            elif spec.kind is OutputKind.USER_INPUT_MUTATION:
                value = inputs[users.index(str(spec.target))]
                label = f"changed input {spec.target}"
            else:
                label, value = f"state {spec.target}", model.held[str(spec.target)]
            results.append((label, compare(value, reference[spec.arg.name])))
    if any(is_random(n) for n in compute_nodes(program.exported)):
        return []
    for label, difference in results:
        if not difference.error <= limit:
            raise VerificationError(
                f"the compiled model gives wrong numbers: error {difference.error:.3g} in {label}, "
                f"at most {limit:.3g} is allowed",
                cause="each segment alone is within the limit; their errors add up",
                remedy="ask for another precision=, or allow more with max_error=",
            )
    return results


def _expected(program: Program, reference: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Eager's flat results."""
    specs = program.exported.graph_signature.output_specs
    return tuple(reference[s.arg.name].detach() for s in specs if s.kind is OutputKind.USER_OUTPUT)


def _draws(segment: Segment) -> bool:
    return any(is_random(n) for n in compute_nodes(segment.program))


def _median_seconds(model: CompiledModel, examples: Sequence[torch.Tensor]) -> float:
    times = []
    with model.preserving_state():
        for _ in range(AUTO_CALLS):
            inputs = [t.clone() for t in examples]
            start = time.perf_counter()
            model.run(inputs)
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
