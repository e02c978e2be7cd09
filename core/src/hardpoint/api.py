"""The public functions, bound to the process-wide registry unless one is given.

This is the face for scripts and notebooks. An embedder passes ``registry=`` of its own; no other
module of the core knows the default one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hardpoint.collection import young_only
from hardpoint.registry.registry import Registry, default_registry

if TYPE_CHECKING:
    from datetime import timedelta

    import torch
    from torch._C._distributed_c10d import Store

    from hardpoint.benching.bench import Watch
    from hardpoint.benching.benchmark import Benchmark
    from hardpoint.choosing.budget import Budget
    from hardpoint.compiler.held_out import CheckInputs
    from hardpoint.compiler.request import Options, Progress
    from hardpoint.interfaces.backend import Precision
    from hardpoint.interfaces.kinds import Target
    from hardpoint.interfaces.partitioner import Costs, Objective, Partitioner
    from hardpoint.planning.plan import Plan
    from hardpoint.planning.planner import Targets
    from hardpoint.program.dynamic import Dynamic
    from hardpoint.program.program import Program
    from hardpoint.runtime.model import CompiledModel

__all__ = [
    "bench", "capture", "compile", "default_registry", "init_process_group", "load", "plan",
]  # fmt: skip


def capture(
    model: torch.nn.Module | str | Path | Callable[..., Any],
    args: Sequence[object] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    dynamic: Dynamic = None,
    name: str = "",
    registry: Registry | None = None,
) -> Program:
    """Capture a model as a program: flat tensors in and out, functional, not decomposed.

    :param model: an ``nn.Module`` with example ``args``/``kwargs``; a local Hugging Face directory;
        a ``.pt2`` file; ``"module:function"`` or ``"file.py:function"`` (or the function itself)
        that returns ``(model, example_inputs)`` or ``(model, example_inputs, dynamic_shapes)``.
    :param dynamic: sizes that may change, by argument name: ``{"x": {0: "batch"}}``; or
        ``torch.export``'s own ``dynamic_shapes``.
    :raises CaptureError: the model cannot be captured; says which line and what to change.
    """
    from hardpoint.program.sources import capture_source

    return capture_source(
        model, args, kwargs, dynamic=dynamic, name=name, registry=registry or default_registry()
    )


def plan(
    program: Program,
    *,
    targets: Targets = "auto",
    objective: Objective = "latency",
    partitioner: str | Partitioner = "capability",
    costs: Costs | None = None,
    registry: Registry | None = None,
) -> Plan:
    """Decide where each part of ``program`` runs. ``print`` the result, or ``.save_html(path)``.

    :param targets: ``"auto"``, or ``backend[:device]`` names in order of preference.
    :raises PlanError: some operation runs on none of the targets.
    :raises ProviderUnavailable: a target named explicitly is not available here.
    """
    from hardpoint.planning.planner import plan_program

    return plan_program(
        program,
        registry=registry or default_registry(),
        targets=targets,
        objective=objective,
        partitioner=partitioner,
        costs_given=costs,
    )


def compile(  # noqa: A001 - the public name, as in torch.compile
    plan: Plan | Program,
    *,
    targets: Targets | None = None,
    objective: Objective | None = None,
    precision: Precision | Literal["auto"] | Mapping[str, Precision] = "fp32",
    max_error: float | None = None,
    budget: Budget | float | None = None,
    options: Options | None = None,
    isolate: bool = False,
    timeout: float | None = None,
    fallback: str | Target | Sequence[str | Target] | None = None,
    check_inputs: CheckInputs | None = None,
    progress: Progress | None = None,
    registry: Registry | None = None,
) -> CompiledModel:
    """Compile a plan, or a program, and verify it against eager PyTorch on the example inputs.

    Of a *program*, ``targets="auto"`` (the default) measures: every way that the backends here have
    to run it is compiled, verified and timed, each in processes of its own, and the best is taken;
    ``.choice`` of the result says what was tried. The second time that is known, and instant. A
    *plan* has its targets already, in order of preference, and nothing is timed.

    :param targets: for a program: ``"auto"``, or names as :func:`plan` takes them.
    :param objective: for a program: ``latency`` (default), ``throughput``, ``size`` or ``memory``.
    :param precision: ``fp32 bf16 fp16 int8 int8w int4w``, or ``"auto"``: the best within
        ``max_error``; or each backend's own, e.g. ``{"npu": "fp16"}`` (the others: fp32).
    :param max_error: greatest accepted error (absolute, relative to magnitudes above 1); by default
        1e-4 for fp32, 3e-2 for bf16, 1e-2 for fp16, 1e-1 for int8 and int8w, 2e-1 for int4w; the
        greatest of those in use. With a measured ``precision="auto"``: 1e-2. Where a result is
        smaller than the limit, and more than half of it is error, a :class:`HardpointWarning` says
        so; ``targets="auto"`` leaves such a candidate out.
    :param budget: what measuring may cost: seconds (default 600), or a :class:`Budget`.
    :param options: backend name -> its own options, e.g. ``{"cpu": {"mode": "aot"}}``.
    :param isolate: compile in child processes, ``timeout`` seconds each, so that a crash is an
        error. What is measured always is.
    :param fallback: targets, in order, for a segment that runs out of memory or loses its device,
        now or in a later call. It is compiled for the next of them that can take it, the state is
        kept, and the call repeated; with a warning and an event, and ``model.fell_back`` tells.
    :param check_inputs: arguments of another call, as a tuple or by name: real inputs to verify on
        as well, which nothing is compiled or calibrated with. Without any, the error of int8 is
        that on the very examples that it was calibrated on. What ``targets="auto"`` measures is
        timed on them: give as many samples as in a real call.
    :raises RuntimeFault: out of memory, or the device is lost, and no fallback is left.
    :raises CompileError: a segment cannot be compiled, or nothing that was tried runs the program.
    :raises VerificationError: the result differs from eager by more than ``max_error``.
    """
    from hardpoint.compiler.entry import compile_given

    return compile_given(
        plan,
        registry=registry or default_registry(),
        targets=targets,
        objective=objective,
        precision=precision,
        max_error=max_error,
        budget=budget,
        options=options,
        isolate=isolate,
        timeout=timeout,
        fallback=fallback,
        progress=progress,
        check_inputs=check_inputs,
    )


def bench(
    program: Program,
    *,
    targets: Targets = "auto",
    precisions: Sequence[Precision] | None = None,
    variants: Sequence[str] | None = None,
    options: Options | None = None,
    batches: Sequence[int] = (),
    threads: int | None = None,
    objective: Objective = "latency",
    max_error: float | None = None,
    rounds: int = 15,
    budget: float | None = None,
    timeout: float = 600.0,
    check_inputs: CheckInputs | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    registry: Registry | None = None,
) -> Benchmark:
    """Compare all ways to run ``program`` as a whole on this machine; ``print`` shows the table.

    Each candidate (target x precision x variant) is compiled and run in child processes of its own,
    compared with eager PyTorch on the example inputs, and timed in turn with the others. One that
    fails, crashes or hangs is a row with the reason.

    :param targets: ``"auto"`` is every device of every available backend.
    :param precisions: that count; ``None``: all that each backend declares.
    :param variants: words of :attr:`BackendInfo.variants`, and ``"default"`` for a backend's
        defaults; ``None``: all.
    :param options: backend -> options that each of its candidates has.
    :param batches: samples in a call; the program's batch must be dynamic. Empty: as the examples.
    :param threads: that each process computes with; ``None``: as many as PyTorch does here.
    :param objective: what the rows are sorted by; ``"throughput"`` calls from a thread for each
        core that is computed on.
    :param max_error: what is beyond is a failure. ``None``: it is timed, and marked where it is
        beyond what is usual for its precision.
    :param rounds: of timing, 60 ms each.
    :param budget: seconds in all; then nothing more is built.
    :param timeout: seconds to compile one candidate.
    :param check_inputs: arguments of another call, as a tuple or by name: real inputs that all is
        timed on, and nothing compiled or calibrated with; errors are the greater of these and of
        the examples. Without any, the error of int8 is that on what it was calibrated on.
    :param progress: called as :func:`compile` does.
    :param watch: called with all rows, in order, whenever one changed.
    :raises PlanError: nothing runs the whole program.
    :raises InputError: not at that batch.
    :raises ProviderError: a target that was named is not there or does not load.
    """
    from hardpoint.benching.bench import run_bench
    from hardpoint.benching.request import Request
    from hardpoint.compiler.held_out import with_check_inputs
    from hardpoint.measuring.limits import Limits
    from hardpoint.measuring.session import Session

    program = with_check_inputs(program, check_inputs)
    given: Any = [targets] if isinstance(targets, str) else targets
    request = Request(
        targets=None if targets == "auto" else given, precisions=precisions, variants=variants,
        options=options or {}, batches=tuple(batches), objective=objective, max_error=max_error,
        rounds=rounds, budget=budget,
    )  # fmt: skip
    with Session(
        program, registry or default_registry(), threads=threads, objective=objective, fresh=True,
        # Some backends compile again where they load.
        limits=Limits(build_seconds=timeout, load_seconds=max(Limits().load_seconds, timeout)),
    ) as session:  # fmt: skip
        return run_bench(session, request, watch=watch, progress=progress)


def load(
    path: str | Path,
    *,
    fallback: str | Sequence[str] | None = None,
    verify: Literal["full", "quick"] = "full",
    registry: Registry | None = None,
) -> CompiledModel:
    """Load a package that :meth:`CompiledModel.save` wrote. Never unpickles.

    :param fallback: targets to recompile the program for where a target of the package is missing
        here; without it that is an error. Taking it gives a warning and an event. In later calls
        it is what it is in :func:`compile`.
    :param verify: check every hash (``"full"``), or all but the weights' (``"quick"``). Weights
        that no artifact uses are checked when the program is read, which running it does not.
    :raises PackageError: damaged or hostile file.
    :raises ArtifactError: an artifact was made for another machine or version.
    """
    with young_only():
        from hardpoint.compiler.fallback import load_or_recompile

    return load_or_recompile(
        Path(path), registry=registry or default_registry(), fallback=fallback, verify=verify
    )


def init_process_group(
    name: str,
    *,
    init_method: str | None = None,
    store: Store | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: timedelta | None = None,
    config: Mapping[str, object] | None = None,
    device_id: torch.device | None = None,
    registry: Registry | None = None,
) -> None:
    """Make transport ``name`` the default process group of ``torch.distributed``.

    :raises TransportError: the group cannot be made, with the reason.
    """
    from hardpoint.bridges.c10d import init_process_group as init

    init(
        name, registry=registry or default_registry(), init_method=init_method, store=store,
        rank=rank, world_size=world_size, timeout=timeout, config=config, device_id=device_id,
    )  # fmt: skip
