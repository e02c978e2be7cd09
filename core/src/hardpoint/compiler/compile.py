"""From a plan to a compiled model, verified against eager PyTorch."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from hardpoint.compiler.examples import make_examples
from hardpoint.compiler.made import Made, make_segment, with_fall_back, with_segment
from hardpoint.compiler.precision import PrecisionAsked, Precisions, read_precision
from hardpoint.compiler.recover import Carried, Recovery
from hardpoint.compiler.request import CompileRequest, Options, Progress, read_chain
from hardpoint.compiler.saving import save_unchanged
from hardpoint.compiler.verify import draws, reference_values, summarize
from hardpoint.compiler.whole import eager_results, verify_held_out, verify_whole, warn_of_hidden
from hardpoint.compiler.wire import wire
from hardpoint.errors import (
    CompileError,
    ConfigError,
    HardpointError,
    HardpointWarning,
    RuntimeFault,
)
from hardpoint.events import Event
from hardpoint.interfaces.backend import PRECISIONS
from hardpoint.interfaces.kinds import Target
from hardpoint.planning.plan import Plan
from hardpoint.runtime.faults import fell_back_in_words
from hardpoint.runtime.model import CompiledModel, ModelFacts
from hardpoint.runtime.settling import settling
from hardpoint.runtime.unchanged import Unchanged

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Calls of each candidate that `precision="auto"` times; the median counts.
AUTO_CALLS = 7


def compile_plan(
    plan: Plan,
    *,
    registry: Registry,
    precision: PrecisionAsked = "fp32",
    max_error: float | None = None,
    options: Options | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    fallback: str | Target | Sequence[str | Target] | None = None,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compile every segment of ``plan``, verify it, and tie the result together.

    :param precision: ``"auto"`` compiles every precision that all backends of the plan have and
        takes the fastest on the examples whose error is within ``max_error``. A mapping gives
        each backend its own, e.g. ``{"npu": "fp16"}``; those it does not name compute in fp32.
    :param max_error: see :class:`hardpoint.compiler.verify.Difference`; default by precision.
    :param options: backend name -> its own options, e.g. ``{"cpu": {"mode": "aot"}}``.
    :param fallback: see :class:`hardpoint.compiler.recover.Recovery`.
    :raises CompileError: a segment cannot be compiled.
    :raises VerificationError: a segment gives other numbers than eager PyTorch.
    """
    if not isinstance(plan, Plan):
        raise CompileError(
            f"compile() takes a plan, got {type(plan).__name__}",
            remedy="plan the program first: hp.compile(hp.plan(program))",
        )
    chain = read_chain(fallback, registry)
    spare = [t.backend for t in chain]
    precisions = read_precision(precision, [*(c.target.backend for c in plan.candidates), *spare])
    unknown = set(options or ()) - {t.backend for t in plan.targets} - set(spare)
    if unknown:
        raise ConfigError(
            f"options name {min(unknown)!r}, which is no backend of this plan",
            remedy=f"the plan uses: {', '.join(map(str, (*plan.targets, *chain)))}",
        )
    request = CompileRequest(
        precisions or Precisions(), max_error, options, isolate, timeout, progress, chain
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
    best_seconds, best_precisions, refusals = 0.0, Precisions(), []
    for precision in (p for p in PRECISIONS if p in shared):
        try:
            asked = replace(request, precisions=Precisions(precision), chain=())
            model = _compile(plan, registry, asked)
        except HardpointError as error:
            refusals.append(f"{precision}: {error.what}" + (error.cause and f"; {error.cause}"))
            continue
        seconds = _median_seconds(model, model.facts.examples)
        if best is None or seconds < best_seconds:
            if best is not None:
                best.close()
            best, best_seconds, best_precisions = model, seconds, asked.precisions
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
    facts = best.facts._replace(verification={**best.verification, "refused": refusals})
    best.facts = facts
    if request.chain:  # not before: a candidate that fell back would be compared with the others
        best.fallback = Recovery(registry, replace(request, precisions=best_precisions))
    return best


def _compile(plan: Plan, registry: Registry, request: CompileRequest) -> CompiledModel:
    program = plan.program
    examples = program.example_inputs or make_examples(program.signature)
    reference = reference_values(program, examples)
    carried = Carried(program, plan.to_json(), lambda: reference)
    recovery = Recovery(registry, request) if request.chain else None
    made: list[Made] = []
    left: list[Mapping[str, object]] = []
    limit = request.limit(*plan.targets)
    precision = request.precisions.in_words(t.backend for t in plan.targets)
    started = time.perf_counter()
    model: CompiledModel | None = None
    try:
        for i, segment in enumerate(plan.segments):
            tell = partial(request.tell, i, len(plan.segments))
            asked = request.precisions.of(segment.target.backend)
            try:
                made.append(make_segment(segment, asked, registry, request, reference, tell))
            except RuntimeFault as fault:
                if recovery is None:
                    raise
                other, fact = recovery.instead(
                    carried, segment.id, (segment.target, segment.device), fault, fault.__cause__
                )
                made.append(other)
                left.append(fact)
                registry.emit(Event("fell back", f"backend:{segment.target.backend}", fact))
                warnings.warn(fell_back_in_words(fact), HardpointWarning, stacklevel=5)
        model = _assemble(plan, registry, made, left, recovery, examples)
        results = verify_whole(model, program, reference, examples, limit, made)
        results = verify_held_out(model, program, limit, made, results)
    except BaseException:
        for one in made:
            one.segment.executable.close()
        if model is not None:
            model.close()
        raise
    request.tell(len(plan.segments), len(plan.segments), "verified")
    warn_of_hidden(plan.program.name, results, limit, stacklevel=5)
    figures = summarize(results, limit, precision, [tuple(t.shape) for t in examples])
    random = [s.id for s in plan.segments if draws(s)]
    figures["held_out"] = bool(program.check_inputs and not random)
    figures |= model.facts.verification  # of the segments, as they are now
    if random:
        figures["not_compared"] = f"{', '.join(random)} draw random numbers"
    expected = () if random else eager_results(program, reference)
    model.facts = model.facts._replace(verification=figures, expected=expected)
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
    made: Sequence[Made],
    left: Sequence[Mapping[str, object]],
    recovery: Recovery | None,
    examples: Sequence[torch.Tensor],
) -> CompiledModel:
    schedule = wire(plan)
    source = {**plan.program.exported.constants, **plan.program.exported.state_dict}
    # A copy: running the compiled model must not change the captured state.
    held = {name: source[name].detach().clone() for name in schedule.held}
    facts = ModelFacts(plan.program.name, plan.to_json(), {}, lambda: plan.program, tuple(examples))
    for one in made:
        facts = with_segment(facts, one)
    for fact in left:
        facts = with_fall_back(facts, fact)
    return CompiledModel(
        signature=plan.program.signature,
        schedule=schedule,
        segments=tuple(one.segment for one in made),
        held=held,
        facts=facts,
        emit=registry.emit,
        write=save_unchanged(Unchanged(plan.program.name, source)),
        current=Unchanged(plan.program.name, {n: t for n, t in source.items() if n not in held}),
        fallback=recovery,
        fell_back=tuple(left),
    )


def _median_seconds(model: CompiledModel, examples: Sequence[torch.Tensor]) -> float:
    times = []
    places: list[str | torch.device] = [t.device for t in examples]
    settle = settling([*places, *(s.device.torch_device for s in model.segments)])
    with model.preserving_state():
        for _ in range(AUTO_CALLS):
            inputs = [t.clone() for t in examples]
            settle()
            start = time.perf_counter()
            model.run(inputs)
            settle()
            times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
