"""How Inductor is to compile: its configuration, of the options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from hardpoint_cpu.options import Options, is_count
from hardpoint_cpu.origin import artifact_error

TUNING = "tuning"  # in an artifact's metadata


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of the options reaches Inductor.

    :param dynamic_threads: code for any number of threads, as the machine that loads it has them.
    :param integers: look at what it made of int8 layers: its cache would skip that.
    """

    freezing: bool = False
    max_autotune: bool = False
    threads: int | None = None
    integers: bool = False
    dynamic_threads: bool = False

    @classmethod
    def of(cls, options: Options, precision: str) -> Tuning:
        """The part of the options that concerns the compiler."""
        return cls(
            options.freezing,
            options.max_autotune,
            options.threads,
            integers=precision == "int8",
            dynamic_threads=options.numa is not None and options.threads is None,
        )

    @classmethod
    def read(cls, metadata: Mapping[str, object]) -> Tuning:
        """From an artifact.

        :raises ArtifactError: it is not there, or damaged.
        """
        found = metadata.get(TUNING)
        try:
            made = cls(**found)  # type: ignore[arg-type]
        except TypeError:
            made = None
        flags = () if made is None else (
            made.freezing, made.max_autotune, made.integers, made.dynamic_threads
        )  # fmt: skip
        right = made is not None and (made.threads is None or is_count(made.threads))
        if made is None or not right or not all(isinstance(flag, bool) for flag in flags):
            raise artifact_error(
                "the artifact does not say how it is to be compiled",
                remedy="compile the segment again",
            )
        return made

    def to_json(self) -> dict[str, object]:
        """For the artifact's metadata."""
        return asdict(self)

    def patches(self) -> dict[str, Any]:
        """Inductor's configuration for this."""
        patches: dict[str, Any] = {"freezing": self.freezing}
        if self.max_autotune:
            patches |= {"max_autotune": True, "max_autotune_gemm_backends": "CPP,ATEN"}
        if self.threads is not None:
            patches["cpp.threads"] = self.threads
        if self.dynamic_threads:
            patches["cpp.dynamic_threads"] = True
        if self.integers:
            # Kernels are cached all the same, by their source, and they are what takes long.
            patches["fx_graph_cache"] = False
        return patches
