"""The backend: a Mac's GPU through PyTorch's MPS."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch.export import ExportedProgram

from hardpoint import (
    Artifact,
    Backend,
    CompileOptions,
    Device,
    Executable,
    OutOfMemory,
    Support,
    did_you_mean,
)
from hardpoint_cpu import elsewhere, executed, shapes
from hardpoint_cpu.operators import Operators
from hardpoint_cpu.origin import artifact_error, compile_error, speaking_as
from hardpoint_cpu.place import Place
from hardpoint_cpu.precision import to_half
from hardpoint_cpu.segment import from_program
from hardpoint_cpu.support import support
from hardpoint_metal import system
from hardpoint_metal.options import MODES, ORIGIN, PROVIDER, Options, format_of, wrong
from hardpoint_metal.system import Mac

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_FROM = (14,)  # Metal 3.1
# The dispatcher answers for every operator on MPS: it raises, or, asked to, computes on the CPU.
PLACE = Place(
    torch.device("mps", 0),
    "Metal",
    "MPS",
    falls_back=True,
    lacks={
        torch.float64: "Metal has no float64",
        torch.complex128: "Metal has no float64, and so no complex128",
        torch.complex32: "Metal has hardly a kernel for torch.complex32",
    },
)


class MetalBackend(Backend):
    """``backend:metal``.

    :param config: may hold ``operators``: namespaces of custom operators to allow, a list of names.
    :raises ConfigError: unknown configuration.
    """

    def __init__(self, config: Mapping[str, object]) -> None:
        for name in config:
            if name != "operators":
                what = f"the metal backend has no configuration {name!r}"
                raise wrong(what, did_you_mean(name, ["operators"]))
        names = config.get("operators", ())
        if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
            what = f"configuration operators is {names!r}"
            raise wrong(what, "give a list of namespaces, e.g. ['torchvision']")
        self._operators = Operators(frozenset(names))

    def devices(self) -> Sequence[Device]:
        """The one GPU; none where the backend is unavailable."""
        return system.probe().devices

    def support(self, program: ExportedProgram, device: Device) -> Support:
        """Every node with a kernel of Metal's own, and no float64."""
        return support(program, self._operators, PLACE)

    def compile(
        self, program: ExportedProgram, device: Device, options: CompileOptions
    ) -> Artifact:
        """Compile a segment in the mode that the options name.

        :raises CompileError: with the reason in words.
        :raises ConfigError: unknown options.
        :raises ProviderUnavailable: no device, or a silent fallback was asked for.
        """
        wanted = Options.parse(options.backend)
        return self.compile_for(program, system.mac(), options.precision, wanted)

    def compile_for(
        self, program: ExportedProgram, mac: Mac, precision: str, wanted: Options
    ) -> Artifact:
        """Compile for a Mac that is described; mode ``eager`` does not need it to be this one.

        :raises CompileError: with the reason in words.
        """
        with speaking_as(PROVIDER, ORIGIN):
            segment = from_program(program)
            _check_dtypes(segment.named_weights())
            if precision in _HALF:
                reason = lacks(mac, precision)
                if reason:
                    raise compile_error(
                        f"this Mac does not compute in {precision}",
                        cause=reason,
                        remedy="ask for precision 'fp16' or 'fp32'",
                    )
                segment = to_half(segment, _HALF[precision])
            elif precision != "fp32":
                raise compile_error(
                    f"the metal backend does not compute in {precision}",
                    remedy="ask for precision 'fp32', 'bf16' or 'fp16', or for another backend",
                )
            made = elsewhere.compile_segment(
                segment,
                {} if wanted.mode == "eager" else shapes.describe(program),
                self._operators,
                PLACE.device,
                mode=wanted.mode,
                freezing=False,
                kind=format_of(wanted.mode),
            )
        facts = {"mode": wanted.mode, "precision": precision, "torch": mac.torch, "chip": mac.chip,
                 "macos": list(mac.macos)}  # fmt: skip
        return dataclasses.replace(made, metadata={**made.metadata, **facts})

    def load(self, artifact: Artifact, device: Device) -> Executable:
        """Open an artifact of any of the modes.

        :raises ArtifactError: another version or machine, or damaged, with the reason.
        :raises ProviderUnavailable: no device, or a silent fallback was asked for.
        """
        mac = system.mac()
        if device.id != "0":
            with speaking_as(PROVIDER, ORIGIN):
                what = f"the metal backend has no device {device.id!r}"
                raise artifact_error(what, remedy=did_you_mean(device.id, ["0"]))
        return self.load_for(artifact, mac)

    def load_for(self, artifact: Artifact, mac: Mac) -> Executable:
        """Open an artifact on a Mac that is described, and that PyTorch must be on by now.

        :raises ArtifactError: it does not fit.
        """
        with speaking_as(PROVIDER, ORIGIN):
            mode = _check(artifact, mac)
            inner = elsewhere.load(artifact, self._operators, PLACE.device, mode)
        told = artifact.metadata.get(executed.KEY)
        facts = dict(told) if isinstance(told, Mapping) else {}
        return MetalExecutable(inner, {**facts, "mode": mode, "device": mac.chip})


def lacks(mac: Mac, precision: str) -> str:
    """Why this Mac does not compute in ``precision``; ``""`` where it does."""
    if precision == "bf16" and mac.macos < _BF16_FROM:
        return f"bfloat16 needs macOS 14, and this is macOS {'.'.join(map(str, mac.macos))}"
    return ""


def _check_dtypes(weights: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in weights.items():
        if tensor.dtype in PLACE.lacks:
            raise compile_error(
                f"weight {name!r} is {tensor.dtype}",
                cause=PLACE.lacks[tensor.dtype],
                remedy="convert the model yourself: model.float()",
            )


def _check(artifact: Artifact, mac: Mac) -> str:
    modes = {format_of(mode): mode for mode in MODES}
    mode = modes.get(artifact.format)
    made = artifact.metadata
    if mode is None:
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the metal backend reads",
            cause=f"it reads {', '.join(modes)}",
            remedy="open it with the backend that made it, or compile the segment again",
        )
    reason = lacks(mac, str(made.get("precision")))
    if reason:
        raise artifact_error(
            "the artifact does not run on this Mac",
            cause=reason,
            remedy="ask for another precision",
        )
    if mode == "aot" and made.get("torch") != mac.torch:
        raise artifact_error(
            "the artifact was compiled for another version of PyTorch",
            cause=f"it was compiled with torch {made.get('torch')}, this is torch {mac.torch}",
            remedy="compile the segment again on this machine, or use mode 'eager'",
        )
    return mode


class MetalExecutable(Executable):
    """An executable of any mode. MPS has one stream: whoever copies results away sees them whole.

    :param facts: what is known of the artifact and the device.
    """

    def __init__(self, inner: Executable, facts: Mapping[str, object]) -> None:
        self._inner = inner
        self._facts = facts

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run.

        :raises OutOfMemory: the memory that Metal may use ran out.
        """
        try:
            return self._inner(*inputs)
        except RuntimeError as error:
            text = (str(error).strip().splitlines() or [""])[0]
            if "out of memory" not in text.lower():
                raise
            raise OutOfMemory(
                f"metal:0 ({self._facts['device']}) ran out of the memory that Metal may use",
                provider=PROVIDER, origin=ORIGIN, cause=f"{type(error).__name__}: {text[:600]}",
                remedy="pass smaller inputs, compile with a narrower precision, or with "
                "fallback=['cpu']",
            ) from error  # fmt: skip

    def facts(self) -> Mapping[str, object]:
        """The artifact's facts, the device's, and whether PyTorch may fall back to the CPU."""
        return {**self._facts, "cpu_fallback": system.fallback_asked()}

    def close(self) -> None:
        """Let go of the device's memory."""
        self._inner.close()
