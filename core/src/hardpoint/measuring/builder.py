"""The process that compiles, verifies and saves candidates, one after another."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardpoint.errors import (
    DeviceLost,
    HardpointError,
    OutOfMemory,
    RuntimeFault,
    VerificationError,
)
from hardpoint.measuring import candidate as candidates, residence
from hardpoint.measuring.serving import Line, pin
from hardpoint.measuring.surveyor import one_line

if TYPE_CHECKING:
    from hardpoint.interfaces.partitioner import Objective
    from hardpoint.measuring.candidate import Candidate
    from hardpoint.measuring.inputs import Inputs
    from hardpoint.measuring.results import Errors
    from hardpoint.planning.plan import Plan
    from hardpoint.program.program import Program
    from hardpoint.registry.registry import Registry
    from hardpoint.runtime.model import CompiledModel

# What runtimes say when they find no memory, beside Python's own MemoryError.
_NO_MEMORY = (
    "memoryerror",
    "can't allocate memory",
    "out of memory",
    "bad_alloc",
    "cannot allocate memory",
)


def main(answers: int) -> None:
    """Build what each command names; answer with figures, or with how it failed.

    One process for all candidates of a backend: importing costs more than compiling a small model.
    """
    line = Line(answers)
    job = line.next()
    line.say("stage", stage="reading the program")
    pin(job["threads"], job["processors"])
    from hardpoint.measuring.inputs import read_inputs
    from hardpoint.measuring.workload import read_program_file
    from hardpoint.registry.handover import rebuild

    given = read_inputs(Path(job["inputs"]))
    program = read_program_file(Path(job["program"]))
    if not program.check_inputs:  # else they are not for compilers, which may calibrate with them
        program = replace(program, example_inputs=given.inputs)
    planner = _Planner(program, rebuild(job["registry"]))
    line.say("ready")
    for command in line.commands():
        gc.collect()
        residence.forget_peak()
        try:
            figures = _build(planner, given, command, line)
        except Exception as error:
            kind, reason = failure_of(error)
            line.say("built", failure={"kind": kind, "reason": reason})
            if kind in ("memory", "crashed"):
                return  # what is left of it would be the next one's trouble
        else:
            line.say("built", figures=figures)


def failure_of(error: Exception) -> tuple[str, str]:
    """(kind, reason) of an exception. A lost device is a crash: it may have been chance, and the
    process is of no use any more.
    """
    reason = one_line(error) if isinstance(error, HardpointError) else _raised(error)
    fault = _fault(error)
    if fault is DeviceLost:
        return "crashed", reason
    if fault is OutOfMemory or any(said in reason.lower() for said in _NO_MEMORY):
        return "memory", reason
    if isinstance(error, VerificationError):
        return "wrong", reason
    return ("refused" if isinstance(error, HardpointError) else "raised"), reason


def _fault(error: BaseException | None) -> type[RuntimeFault] | None:
    """The fault that an exception is, or that it was raised from."""
    from hardpoint.runtime.faults import fault_of

    while error is not None:
        found = fault_of(error)
        if found is not None:
            return found
        error = error.__cause__
    return None


def _raised(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"


class _Planner:
    """Plans; the last one is kept, as it is that of the next precision, too.

    :ivar registry: of the backends.
    """

    def __init__(self, program: Program, registry: Registry) -> None:
        self._program, self.registry = program, registry
        self._last: tuple[tuple[object, ...], Plan] | None = None

    def plan(self, wanted: Candidate, objective: Objective) -> Plan:
        """Where each part runs. Raises as :func:`plan_program`."""
        from hardpoint.measuring.whole import Whole
        from hardpoint.planning.planner import plan_program

        key = (wanted.targets, wanted.partitioner, objective)
        if self._last is None or self._last[0] != key:
            self._last = None
            made = plan_program(
                self._program,
                registry=self.registry,
                targets=list(wanted.targets),
                partitioner=wanted.partitioner or Whole(),
                objective=objective,
            )
            self._last = key, made
        return self._last[1]


def _build(
    planner: _Planner, given: Inputs, command: Mapping[str, Any], line: Line
) -> dict[str, Any]:
    from hardpoint.compiler.compile import compile_plan
    from hardpoint.measuring.agreement import errors

    wanted = candidates.from_json(command["candidate"])
    line.say("stage", stage="planning")
    plan = planner.plan(wanted, command["objective"])
    clock = _Clock(line)
    used = {target.backend for target in plan.targets}
    model = compile_plan(
        plan,
        registry=planner.registry,
        precision={b: p for b, p in wanted.precisions.items() if b in used},
        # The figures tell; who asked for them decides how much is too much.
        max_error=float("inf"),
        options={b: o for b, o in wanted.options.items() if b in used},
        progress=clock,
    )
    clock.end()
    line.say("stage", stage="calling the compiled model")
    found = None
    if "not_compared" not in model.verification:
        with model.preserving_state():
            got = model.run([t.clone() for t in given.inputs])
        found = errors(got, given.expected, given.names)
        found = _with_all(found, model.verification)
    line.say("stage", stage="saving")
    path = model.save(Path(command["package"]))
    artifact_bytes = _size_of(model)
    model.close()
    return {
        "bytes": path.stat().st_size,
        "artifact_bytes": artifact_bytes,
        "compile_seconds": clock.seconds["compile"],
        "verify_seconds": clock.seconds["verify"],
        "peak_bytes": residence.peak(),
        "errors": None if found is None else found.to_json(),
        "executed": model.verification.get("executed", {}),
        "segments": len(plan.segments),
    }


def _with_all(found: Errors, verification: Mapping[str, Any]) -> Errors:
    """With what was verified at compilation: changed inputs and state, and the examples."""
    rows = verification["results"].values()
    return replace(
        found,
        max=max(found.max, float(verification["max_error"])),
        cosine=min([found.cosine, *(float(row["cosine"]) for row in rows)]),
        relative=max([found.relative, *(float(row["relative"]) for row in rows)]),
    )


def _size_of(model: CompiledModel) -> int:
    """Bytes of all artifacts; a weight that several of them use counts once."""
    files = 0
    weights: dict[int, int] = {}
    for segment in model.segments:
        files += sum(memoryview(data).nbytes for data in segment.artifact.files.values())
        for tensor in segment.artifact.weights.values():
            storage = tensor.untyped_storage()
            weights[storage.data_ptr()] = storage.nbytes()
    return files + sum(weights.values())


class _Clock:
    """Takes ``compile_plan``'s progress: tells the parent, and sums compiling and verifying."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._since, self._kind = time.perf_counter(), "before"
        self.seconds = {"before": 0.0, "compile": 0.0, "verify": 0.0}

    def __call__(self, done: int, total: int, what: str) -> None:
        """``what`` begins."""
        self._line.say("stage", stage=what)
        self._turn("compile" if what.startswith("compiling") else "verify")

    def end(self) -> None:
        """All is done."""
        self._turn("before")

    def _turn(self, kind: str) -> None:
        now = time.perf_counter()
        self.seconds[self._kind] += now - self._since
        self._since, self._kind = now, kind
