"""What ``hardpoint.compile`` is given: a plan, or a program that is planned or chosen for first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hardpoint.choosing.budget import Budget
from hardpoint.compiler.compile import compile_plan
from hardpoint.compiler.fallback import later
from hardpoint.compiler.held_out import CheckInputs, with_check_inputs
from hardpoint.compiler.precision import PrecisionAsked
from hardpoint.compiler.request import Options, Progress, read_chain
from hardpoint.compiler.verify import FLOAT64_MAX_ERROR, only_float64
from hardpoint.errors import CompileError, ConfigError, did_you_mean
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Objective
from hardpoint.planning.plan import Plan
from hardpoint.planning.planner import Targets, plan_program
from hardpoint.program.program import Program
from hardpoint.runtime.model import CompiledModel

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


def compile_given(
    given: Plan | Program,
    *,
    registry: Registry,
    targets: Targets | None,
    objective: Objective | None,
    precision: PrecisionAsked,
    max_error: float | None,
    budget: Budget | float | None,
    options: Options | None,
    isolate: bool,
    timeout: float | None,
    fallback: str | Target | Sequence[str | Target] | None,
    progress: Progress | None,
    check_inputs: CheckInputs | None,
) -> CompiledModel:
    """See :func:`hardpoint.compile`.

    :raises ConfigError: arguments that contradict each other.
    """
    if isinstance(given, Program):
        given = with_check_inputs(given, check_inputs)
    elif isinstance(given, Plan) and check_inputs is not None:
        given = replace(given, program=with_check_inputs(given.program, check_inputs))
    if isinstance(given, Program) and targets in (None, "auto"):
        from hardpoint.choosing.choose import choose
        from hardpoint.choosing.request import read_request

        if timeout is not None:
            raise ConfigError(
                "timeout= goes with isolate= and named targets; targets='auto' has its budget=",
                remedy="e.g. budget=hardpoint.Budget(candidate_seconds=60)",
            )
        known = registry.names("backend")
        for name in options or ():
            if name not in known:
                raise ConfigError(
                    f"options name {name!r}, which is no backend here",
                    remedy=did_you_mean(name, known),
                )
        if max_error is None and precision == "fp32" and only_float64(given.exported):
            max_error = FLOAT64_MAX_ERROR  # as for named targets: float32 is found out
        request = read_request(objective or "latency", precision, max_error, options, budget)
        chain = read_chain(fallback, registry)
        model = choose(given, registry=registry, request=request, progress=progress)
        if chain:
            model.fallback = later(chain, registry, model, options)
        return model
    if budget is not None:
        raise ConfigError(
            "budget= is for targets='auto': what is planned for named targets is not measured",
            remedy="leave it out, or give the program itself and targets='auto'",
        )
    if isinstance(given, Program):
        given = plan_program(
            given, registry=registry, targets=targets or "auto", objective=objective or "latency"
        )
    elif not isinstance(given, Plan):
        raise CompileError(
            f"compile() takes a plan or a program, got {type(given).__name__}",
            remedy="capture the model first: hp.compile(hp.capture(model, (x,)))",
        )
    elif targets is not None or objective is not None:
        raise ConfigError(
            "a plan has its targets and its objective already",
            remedy="give them to hp.plan(), or the program itself to hp.compile()",
        )
    return compile_plan(
        given, registry=registry, precision=precision, max_error=max_error, options=options,
        isolate=isolate, timeout=timeout, fallback=fallback, progress=progress,
    )  # fmt: skip
