"""What a segment is computed in, as the passes that rewrote it found: the base of ``facts()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from hardpoint_cpu import host
from hardpoint_cpu.origin import artifact_error

KEY = "executed"  # in an artifact's metadata


@dataclass
class Executed:
    """The arithmetic of one segment.

    :param precision: the narrowest that is really used: ``"fp32"`` where nothing was to be
        narrowed, whatever was asked for.
    :param quantized: how many layers each integer type holds (``"int8"``, ``"int4"``).
    :param float_nodes: layer that stayed in floating point though integers were asked for -> why.
    :param int4_layout: the kernels' instruction set, which int4 weights are laid out for.
    :param vnni: int8 uses all eight bits, which processors without VNNI cannot sum up.
    """

    precision: str = "fp32"
    quantized: dict[str, int] = field(default_factory=dict)
    float_nodes: dict[str, str] = field(default_factory=dict)
    int4_layout: str = ""
    vnni: bool = False

    @classmethod
    def of(cls, told: Mapping[str, object]) -> Executed:
        """What an artifact says (:func:`read`), to be corrected by what is found now."""
        quantized, stayed = told.get("quantized", {}), told.get("float_nodes", {})
        return cls(
            str(told.get("precision")),
            dict(quantized) if isinstance(quantized, Mapping) else {},
            dict(stayed) if isinstance(stayed, Mapping) else {},
            str(told.get("int4_layout", "")),
            told.get("vnni") is True,
        )

    def count(self, kind: str) -> None:
        """One layer more that is held as ``kind``."""
        self.quantized[kind] = self.quantized.get(kind, 0) + 1

    def to_json(self) -> dict[str, object]:
        """For the artifact's metadata; what does not apply is left out."""
        found: dict[str, object] = {"precision": self.precision}
        if self.quantized or self.float_nodes:
            found |= {"quantized": self.quantized, "float_nodes": self.float_nodes}
        if self.int4_layout:
            found["int4_layout"] = self.int4_layout
        if self.vnni:
            found["vnni"] = True
        return found


def read(metadata: Mapping[str, object]) -> dict[str, object]:
    """What an artifact says of itself, if this process can run it.

    :raises ArtifactError: it says nothing, or its int4 weights are laid out for other kernels.
    """
    found = metadata.get(KEY)
    if not isinstance(found, Mapping):
        raise artifact_error(
            "the artifact does not say what it computes in", remedy="compile the segment again"
        )
    layout, here = found.get("int4_layout"), torch.backends.cpu.get_cpu_capability()
    if layout is not None and layout != here:
        raise artifact_error(
            "the artifact's int4 weights were packed for other kernels",
            cause=f"they were packed for {layout}, PyTorch uses its {here} kernels here",
            remedy="compile the segment again on a machine like this one, or in 'int8w'",
        )
    if found.get("vnni") and not host.has_vnni():
        raise artifact_error(
            "the artifact's int8 numbers are for a processor with VNNI",
            cause=f"this processor ({host.device().name}) sums up products of seven bits at most",
            remedy="compile the segment again on a machine like this one",
        )
    return {str(name): value for name, value in found.items()}


def facts(found: Mapping[str, object], mode: str) -> dict[str, object]:
    """``Executable.facts()``: what the artifact holds, and what this process does to it now."""
    told = dict(found)
    narrowed_by = _told_to_narrow() if told["precision"] == "fp32" else ""
    if narrowed_by:
        told |= {"precision": "bf16", "narrowed_by": narrowed_by}
    return told | {
        "mode": mode,
        "threads": torch.get_num_threads(),
        "isa": torch.backends.cpu.get_cpu_capability(),
    }


def _told_to_narrow() -> str:
    """By what this process was told to do float32 arithmetic in bfloat16; "" where by nothing.

    ``torch.set_float32_matmul_precision("medium")`` means products on the CPU, too.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return ""
    backends = torch.backends.mkldnn
    if backends.matmul.fp32_precision == "bf16":  # type: ignore[attr-defined]
        return "torch.set_float32_matmul_precision"
    for kind in ("conv", "rnn"):
        if getattr(backends, kind).fp32_precision == "bf16":
            return f"torch.backends.mkldnn.{kind}.fp32_precision"
    return ""
