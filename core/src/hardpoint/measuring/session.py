"""One measurement: the program in a folder, and the child processes that work on it."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from hardpoint.events import Event
from hardpoint.interfaces.backend import Precision
from hardpoint.interfaces.kinds import Target
from hardpoint.interfaces.partitioner import Objective
from hardpoint.measuring import machine, processors
from hardpoint.measuring.building import Builders, on_a_device
from hardpoint.measuring.candidate import Candidate
from hardpoint.measuring.child import Child, LostError
from hardpoint.measuring.inputs import Inputs, write_inputs
from hardpoint.measuring.limits import Limits, allowed_memory
from hardpoint.measuring.results import Built, Errors, Failure, Timing, errors_from_json
from hardpoint.measuring.running import Runner
from hardpoint.measuring.survey import Options, Survey, survey
from hardpoint.measuring.workload import PROGRAM, make_inputs, write_program_file
from hardpoint.numerics import is_hidden
from hardpoint.program.program import Program
from hardpoint.registry.handover import describe

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry


class Session:
    """Use as a context manager: at its end every child is gone, and so is the folder.

    :param threads: that each process computes with; ``None``: as many as PyTorch does here.
    :param folder: where programs and packages lie meanwhile; ``None``: a temporary one.
    :param fresh: compilers' own caches are off, so that compile times are true.
    """

    def __init__(
        self,
        program: Program,
        registry: Registry,
        *,
        limits: Limits | None = None,
        threads: int | None = None,
        folder: Path | None = None,
        objective: Objective = "latency",
        fresh: bool = False,
    ) -> None:
        self.program, self.registry, self.objective = program, registry, objective
        self.limits = limits or Limits()
        self.threads = threads or torch.get_num_threads()
        self.memory = allowed_memory(self.limits.memory_bytes)
        self._environment = {name: str(self.threads) for name in _THREADS}
        if fresh:
            self._environment["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
        self._parent = folder
        self._inputs: dict[int | None, tuple[Path, Inputs]] = {}
        self.covered: dict[Target, int] = {}  # operations that a target supports, once asked
        self._surveyor: Child | None = None
        self._runners: list[Runner] = []
        room = _IDLE_SHARE * (self.memory or 0)
        self._builders = Builders(
            self._new_builder, self.limits.start_seconds, room,
            lambda named: on_a_device(registry, named),
        )  # fmt: skip

    def __enter__(self) -> Session:
        self.folder = Path(tempfile.mkdtemp(prefix="hardpoint-measure-", dir=self._parent))
        try:
            write_program_file(self.program, self.folder / PROGRAM)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self) -> None:
        """End every child; what they made stays. Their memory, a device's too, is free then."""
        for runner in self._runners:
            runner.stop()
        self._builders.stop()
        self._dismiss()

    def machine(self) -> dict[str, Any]:
        """The machine described; see :func:`hardpoint.measuring.machine.describe`."""
        return machine.describe(self.registry, self.threads)

    def inputs(self, batch: int | None = None) -> Inputs:
        """The examples (at ``batch`` samples), with eager PyTorch's results.

        :raises InputError: the program cannot be run at that batch.
        """
        return self._written(batch)[1]

    def survey(
        self,
        *,
        targets: Sequence[str | Target] | None = None,
        precisions: Sequence[Precision] | None = None,
        options: Options | None = None,
        variants: bool = True,
        cover: Callable[[Target], Failure | None] | None = None,
    ) -> Survey:
        """The candidates; see :func:`hardpoint.measuring.survey.survey`. Asks in a child process.

        :param cover: instead of :meth:`cover`, for answers that are known.
        :raises ProviderError: a target that was named is not there or does not load.
        """
        try:
            return survey(
                self.registry, cover or self.cover, targets=targets, precisions=precisions,
                options=options, variants=variants,
            )  # fmt: skip
        finally:
            self._dismiss()

    def cover(self, target: Target) -> Failure | None:
        """Why ``target`` does not run the whole program, or ``None``."""
        try:
            if self._surveyor is None:
                names = self.registry.names("backend")
                self._surveyor = self._child("surveyor", self._job(names))
                self._surveyor.wait(self.limits.start_seconds)
            command = {"do": "cover", "target": str(target)}
            answer = self._surveyor.ask(command, self.limits.start_seconds)
        except LostError as lost:
            self._surveyor = None
            return lost.failure
        self.covered[target] = answer["supported"]
        return Failure(answer["kind"], "", answer["reason"]) if answer["reason"] else None

    def build(
        self, candidate: Candidate, *, on_stage: Callable[[str], None] | None = None,
        seconds: float | None = None,
    ) -> Built | Failure:  # fmt: skip
        """Compile, verify and save a candidate in a child process.

        No error is too great here: the figures tell, and :meth:`judge` judges.

        :param on_stage: told what is being done. :param seconds: instead of the limit.
        """
        package = self.folder / f"{uuid.uuid4().hex}.pt2"
        command = {
            "do": "build",
            "candidate": candidate.to_json(),
            "package": str(package),
            "objective": self.objective,
        }
        limit = self.limits.build_seconds if seconds is None else seconds
        made = self._builders.build(candidate, command, limit, on_stage)
        if isinstance(made, Failure):
            package.unlink(missing_ok=True)
            return made
        answer = made
        return Built(
            candidate=candidate,
            package=package,
            bytes=answer["bytes"],
            compile_seconds=answer["compile_seconds"],
            verify_seconds=answer["verify_seconds"],
            peak_bytes=answer["peak_bytes"],
            errors=errors_from_json(answer["errors"]),
            executed=answer["executed"],
            segments=answer["segments"],
            artifact_bytes=answer["artifact_bytes"],
        )

    def start(
        self, built: Built | None, batch: int | None = None, package: Path | None = None
    ) -> Runner | Failure:
        """A process that runs a package, its first call made; stopped until it is asked for more.

        :param built: ``None``: eager PyTorch, the baseline.
        """
        path, given = self._written(batch)
        candidate = None if built is None else built.candidate
        names = [] if candidate is None else [t.backend for t in candidate.targets]
        job = {
            **self._job(names),
            "inputs": str(path),
            "package": None if built is None else str(package or built.package),
            "precisions": {} if candidate is None else dict(candidate.precisions),
        }
        child = self._child("runner", job)
        try:
            runner = Runner(child, candidate, given.samples, self.limits)
        except LostError as lost:
            return lost.failure
        except BaseException:  # Ctrl-C: nobody else knows of the child yet
            child.stop()
            raise
        self._runners.append(runner)
        return runner

    def use(self, runner: Runner, batch: int | None) -> Failure | None:
        """Let a runner go on with the examples at another batch; its first call there is checked.

        ``runner.errors`` are those of that call.
        """
        path, given = self._written(batch)
        return runner.use(path, given.samples)

    def failed(self, candidate: Candidate, failure: Failure) -> None:
        """Tell observers that a candidate is out of the question, and why."""
        self._tell(candidate, {"failure": failure.to_json()})

    def measured(self, candidate: Candidate, figures: Timing) -> None:
        """Tell observers a candidate's figures."""
        self._tell(candidate, {"timing": figures.to_json()})

    def _tell(self, candidate: Candidate, more: Mapping[str, object]) -> None:
        data = {"program": self.program.name, "candidate": candidate.label, **more}
        self.registry.emit(Event("measured", f"backend:{candidate.targets[0].backend}", data))

    def _written(self, batch: int | None) -> tuple[Path, Inputs]:
        if batch not in self._inputs:
            made = make_inputs(self.program, batch)
            path = self.folder / f"inputs-{'examples' if batch is None else batch}.pt2"
            write_inputs(path, made)
            self._inputs[batch] = path, made
        return self._inputs[batch]

    def _job(self, backends: Sequence[str]) -> dict[str, Any]:
        return {
            "program": str(self.folder / PROGRAM),
            "registry": describe(self.registry, backends),
            "threads": self.threads,
            "processors": processors.choose(self.threads),
        }

    def _child(self, module: str, job: Mapping[str, Any]) -> Child:
        return Child(
            module, job, folder=self.folder, environment=self._environment, memory=self.memory,
            tree=module == "builder",
        )  # fmt: skip

    def _new_builder(self, backends: Sequence[str]) -> Child:
        job = {**self._job(backends), "inputs": str(self._written(None)[0])}
        return self._child("builder", job)

    def _dismiss(self) -> None:
        if self._surveyor is not None:
            self._surveyor.stop()
            self._surveyor = None


# Of what one child may use, processes that wait for another candidate may take so much together.
_IDLE_SHARE = 0.2
# Read by OpenMP, MKL, OpenBLAS and Apple's Accelerate when a process starts.
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def judge(errors: Errors | None, limit: float) -> Failure | None:
    """Why figures are not within what the caller accepts, or ``None``.

    :param errors: ``None``: the program draws random numbers, which cannot be compared.
    """
    if errors is None:
        return None
    if errors.max <= limit:
        if not is_hidden(errors.relative, limit):
            return None
        return Failure(
            "wrong", "verification",
            f"error {errors.max:.3g} is within {limit:.3g}, which is absolute below 1, but it is "
            f"{errors.relative:.0%} of the greatest value of a result that is itself that small "
            f"(cosine {errors.cosine:.6f})",
        )  # fmt: skip
    return Failure(
        "wrong", "verification",
        f"error {errors.max:.3g}, at most {limit:.3g} is allowed "
        f"(mean {errors.mean:.3g}, cosine {errors.cosine:.6f})",
    )  # fmt: skip
