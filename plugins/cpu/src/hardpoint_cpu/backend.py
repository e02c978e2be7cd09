"""The backend: one CPU, three ways to run on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch.export import ExportedProgram

from hardpoint import (
    Artifact,
    ArtifactError,
    Backend,
    CompileOptions,
    ConfigError,
    Device,
    Executable,
    Support,
    did_you_mean,
)
from hardpoint_cpu import eager, forks, host, numa, on_node
from hardpoint_cpu.formats import AOT, EAGER, INDUCTOR
from hardpoint_cpu.indices import refuse_negative
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.options import Options, is_count, is_node
from hardpoint_cpu.origin import ORIGIN, PROVIDER, artifact_error
from hardpoint_cpu.rewrite import in_precision
from hardpoint_cpu.segment import Segment, from_program
from hardpoint_cpu.support import support
from hardpoint_cpu.threads import Threaded
from hardpoint_cpu.tuning import Tuning


class CpuBackend(Backend):
    """``backend:cpu``.

    :param config: may hold ``operators``: namespaces of custom operators to allow, a list of names.
    :raises ConfigError: unknown configuration.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        self._operators = Operators(_custom(config))

    def devices(self) -> Sequence[Device]:
        """The one CPU."""
        return (host.device(),)

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Every node whose operator has a CPU kernel and whose tensors are plain CPU tensors."""
        return support(program, self._operators)

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Compile a segment in the mode that the options name.

        :raises CompileError: with the reason in words.
        :raises ConfigError: unknown options.
        """
        if forks.here():
            return forks.elsewhere(self.compile, (program, device, options))
        wanted = Options.parse(options.backend, options.precision)
        if wanted.numa is not None:
            there = numa.processors(wanted.numa, ConfigError)  # who misspells it learns it here
            if wanted.max_autotune and wanted.threads is None:
                # Its templates of products divide the work by a number that they are written with.
                wanted = replace(wanted, threads=numa.cores(there))
        segment = in_precision(from_program(program), options, wanted)
        artifact = self._compile(program, segment, options.precision, wanted)
        kept = {n: v for n in ("threads", "numa") if (v := getattr(wanted, n)) is not None}
        return replace(artifact, metadata={**artifact.metadata, **kept}) if kept else artifact

    def _compile(
        self, program: ExportedProgram, segment: Segment, precision: str, wanted: Options
    ) -> Artifact:
        if wanted.mode == "eager":
            return eager.compile_segment(segment, self._operators)
        from hardpoint_cpu import aot, inductor, shapes  # not above: a second to import

        refuse_negative(segment)
        described, tuning = shapes.describe(program), Tuning.of(wanted, precision)
        if wanted.mode == "inductor":
            return inductor.compile_segment(segment, described, self._operators, tuning)
        return aot.compile_segment(segment, described, tuning)

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact of any of the modes.

        :raises ArtifactError: another device, version or machine, or damaged; with the reason.
        """
        known = [d.id for d in self.devices()]
        if device.id not in known:
            raise artifact_error(
                f"the cpu backend has no device {device.id!r}",
                remedy=did_you_mean(device.id, known),
            )
        if forks.here():
            return forks.elsewhere(self.load, (artifact, device))
        threads, node = _threads(artifact), _node(artifact)
        processors: frozenset[int] = frozenset()
        if node is not None:
            processors = numa.processors(node, ArtifactError)
            threads = threads or numa.cores(processors)

        def opened() -> Executable:
            made = self._load(artifact)
            return made if threads is None else Threaded(made, threads)

        if node is None:
            return opened()
        return on_node.OnNode(opened, node, processors)

    def _load(self, artifact: Artifact) -> Executable:
        if artifact.format == EAGER:
            return eager.load(artifact, self._operators)
        if artifact.format == INDUCTOR:
            from hardpoint_cpu import inductor

            return inductor.load(artifact, self._operators)
        if artifact.format == AOT:
            from hardpoint_cpu import aot

            return aot.load(artifact)
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the cpu backend reads",
            cause=f"it reads {EAGER}, {INDUCTOR} and {AOT}",
            remedy="open it with the backend that made it, or compile the segment again",
        )


def _threads(artifact: Artifact) -> int | None:
    """The option ``threads`` that the artifact was compiled with; ``None``: as the process says."""
    found = artifact.metadata.get("threads")
    if found is None or is_count(found):
        return found
    raise artifact_error(
        f"the artifact is to compute on {found!r} threads", remedy="compile the segment again"
    )


def _node(artifact: Artifact) -> int | None:
    """The option ``numa`` that the artifact was compiled with."""
    found = artifact.metadata.get("numa")
    if found is None or is_node(found):
        return found
    raise artifact_error(
        f"the artifact is to run on NUMA node {found!r}", remedy="compile the segment again"
    )


def _custom(config: Mapping[str, object]) -> frozenset[str]:
    for name in config:
        if name != "operators":
            raise ConfigError(
                f"the cpu backend has no configuration {name!r}",
                provider=PROVIDER,
                origin=ORIGIN,
                remedy=did_you_mean(name, ["operators"]),
            )
    names = config.get("operators", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            f"configuration operators is {names!r}",
            provider=PROVIDER,
            origin=ORIGIN,
            remedy="give a list of namespaces, e.g. ['torchvision']",
        )
    return frozenset(names)
