"""The backend of devices that PyTorch calls ``cuda``: NVIDIA's, and through HIP AMD's."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
from torch.export import ExportedProgram

from hardpoint import (
    Artifact,
    Backend,
    CompileOptions,
    ConfigError,
    Device,
    Executable,
    Support,
    did_you_mean,
)
from hardpoint_cpu import elsewhere, executed, shapes
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.origin import compile_error, speaking_as
from hardpoint_cpu.place import Place
from hardpoint_cpu.precision import to_half
from hardpoint_cpu.segment import Segment, from_program
from hardpoint_cpu.support import support
from hardpoint_cuda import bound, engine, graphs, hardware, probing
from hardpoint_cuda.arithmetic import EXACT, TF32, Held
from hardpoint_cuda.faults import translated
from hardpoint_cuda.options import Options
from hardpoint_cuda.running import GpuExecutable
from hardpoint_cuda.vendor import Hardware, Vendor
from hardpoint_cuda.weights import hold_in_eight_bits

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class GpuBackend(Backend):
    """``backend:cuda`` or ``backend:rocm``.

    :param config: may hold ``operators``: namespaces of custom operators to allow, a list of names.
    :param listing: the devices of the vendor, without starting them.
    :raises ConfigError: unknown configuration.
    """

    def __init__(
        self, config: Mapping[str, object], vendor: Vendor, listing: probing.Listing
    ) -> None:
        self._vendor = vendor
        self._listing = listing
        self._operators = Operators(_custom(config, vendor))

    def devices(self) -> Sequence[Device]:
        """All devices that are visible to this process; none where the backend is unavailable."""
        return probing.probe(self._vendor, self._listing, deep=False).devices

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Every node whose operator has a kernel for the device and whose tensors are plain."""
        key = "CUDA"  # HIP's kernels are registered under it too
        place = Place(torch.device(device.torch_device), self._vendor.brand, key)
        return support(program, self._operators, place)

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Compile a segment in the mode that the options name, for a device that is here.

        :raises CompileError: with the reason in words.
        :raises ConfigError: unknown options.
        :raises ProviderUnavailable: the device is not here.
        """
        wanted = Options.parse(options.backend, options.precision, self._vendor)
        return self.compile_for(
            program, hardware.find(device, self._vendor), options.precision, wanted
        )

    def compile_for(
        self, program: ExportedProgram, found: Hardware, precision: str, wanted: Options
    ) -> Artifact:
        """Compile for a device that is described; mode ``eager`` does not need it to be here.

        :raises CompileError: with the reason in words.
        """
        vendor = self._vendor
        with speaking_as(vendor.provider, vendor.origin):
            self._refuse(found, precision, wanted)
            if wanted.graphs:
                graphs.refuse_unrecordable(program)
            segment = _lowered(from_program(program), precision, wanted)
            described = {} if wanted.mode == "eager" else shapes.describe(program)
            setting = TF32 if wanted.tf32 else EXACT
            here = nullcontext() if wanted.mode == "eager" else torch.cuda.device(found.index)
            with here, Held(setting):
                if wanted.mode == "tensorrt":
                    made = engine.compile_segment(
                        segment, described, found, vendor, tf32=wanted.tf32
                    )
                else:
                    made = elsewhere.compile_segment(
                        segment, described, self._operators, torch.device("cuda", found.index),
                        mode=wanted.mode, freezing=wanted.freezing,
                        kind=vendor.format(wanted.mode),
                    )  # fmt: skip
        metadata = {**made.metadata, **bound.facts(wanted, precision, found)}
        return dataclasses.replace(made, metadata=metadata)

    def _refuse(self, found: Hardware, precision: str, wanted: Options) -> None:
        if precision not in ("fp32", "bf16", "fp16", "int8w"):
            raise compile_error(
                f"the {self._vendor.name} backend does not compute in {precision}",
                remedy="ask for 'fp32', 'bf16', 'fp16' or 'int8w', or for another backend",
            )
        for need in wanted.needs(precision):
            reason = self._vendor.lacks(found, need)
            if reason:
                raise compile_error(
                    f"{self._vendor.name}:{found.index} does not do what is asked for",
                    cause=reason,
                    remedy="ask for another precision, mode or device",
                )
        if "triton" in wanted.needs(precision) and importlib.util.find_spec("triton") is None:
            raise compile_error(
                f"mode {wanted.mode!r} needs Triton, which is not installed",
                remedy="pip install triton (PyTorch's own wheels for "
                f"{self._vendor.brand} bring it), or use mode 'eager'",
            )

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact of any of the modes.

        :raises ArtifactError: another architecture, version or machine, or damaged.
        :raises ProviderUnavailable: the device is not here.
        :raises OutOfMemory: the weights do not fit on it.
        """
        found = hardware.find(device, self._vendor)
        try:
            with torch.cuda.device(found.index):
                return self.load_for(artifact, found)
        except (torch.OutOfMemoryError, torch.AcceleratorError) as error:
            failure = translated(error, found, self._vendor)
            if failure is None:
                raise
            raise failure from error

    def load_for(self, artifact: Artifact, found: Hardware) -> Executable:
        """Open an artifact on a device that is described, and that PyTorch must have by now.

        :raises ArtifactError: it does not fit.
        """
        vendor = self._vendor
        with speaking_as(vendor.provider, vendor.origin):
            mode = bound.check(artifact, found, vendor)
            made = artifact.metadata
            setting = TF32 if made.get("tf32") else EXACT
            place = torch.device("cuda", found.index)
            with Held(setting):
                inner: Executable
                if mode == "tensorrt":
                    inner = engine.load(artifact, found)
                else:
                    inner = elsewhere.load(artifact, self._operators, place, mode)
        shapes_kept = made.get("graphs")
        if isinstance(shapes_kept, int) and shapes_kept > 0:
            inner = graphs.GraphExecutable(inner, place, shapes_kept)
        return GpuExecutable(
            inner, found, vendor, setting, lambda: _facts(artifact, inner),
            pinned=made.get("pinned") is True,
        )  # fmt: skip


def _lowered(segment: Segment, precision: str, wanted: Options) -> Segment:
    """The arithmetic that was asked for, written into the graph."""
    originals = segment.named_weights()
    computed = wanted.arithmetic(precision)
    if computed in _HALF:
        segment = to_half(segment, _HALF[computed])
    if precision == "int8w":
        segment = hold_in_eight_bits(segment, wanted.weights, originals)
    return segment


def _facts(artifact: Artifact, inner: Executable) -> dict[str, object]:
    """What the passes found that is computed in, not what was asked for; and what is recorded."""
    made = artifact.metadata
    found: dict[str, object] = {name: made[name] for name in ("mode", "compute") if name in made}
    told = made.get(executed.KEY)
    found |= dict(told) if isinstance(told, Mapping) else {"precision": made.get("precision")}
    return found | (dict(inner.facts()) if isinstance(inner, graphs.GraphExecutable) else {})


def _custom(config: Mapping[str, object], vendor: Vendor) -> frozenset[str]:
    for name in config:
        if name != "operators":
            raise ConfigError(
                f"the {vendor.name} backend has no configuration {name!r}",
                provider=vendor.provider, origin=vendor.origin,
                remedy=did_you_mean(name, ["operators"]),
            )  # fmt: skip
    names = config.get("operators", ())
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        raise ConfigError(
            f"configuration operators is {names!r}",
            provider=vendor.provider, origin=vendor.origin,
            remedy="give a list of namespaces, e.g. ['torchvision']",
        )  # fmt: skip
    return frozenset(names)
