"""What differs between the two vendors whose devices PyTorch calls ``cuda``; data, and light.

ROCm's builds of PyTorch answer ``torch.cuda.*`` through HIP, so that one backend serves both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

# What a segment may need of a device, beside float32: arithmetic, or a compiler for it.
Need = Literal["bf16", "fp16", "fp8", "tf32", "triton"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One device and the software that drives it, as an artifact may be bound to them.

    :param arch: ``"sm_90"`` or ``"gfx942"``.
    :param driver: its version, or ``""`` where the system does not tell.
    :param runtime: the version of CUDA or of ROCm that PyTorch was built with.
    :param kernels: architectures that PyTorch was built for; empty where unknown.
    """

    index: int
    name: str
    arch: str
    driver: str
    runtime: str
    torch: str
    memory: int | None = None
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """A backend's names, and what its devices cannot do.

    :param brand: in messages, e.g. ``"CUDA"``.
    :param built: the name in ``torch.version`` that a build for it sets.
    :param hiding: environment variables that hide devices from a process.
    :param lacks: why a device does not do what is needed, in words; ``""`` where it does.
    :param modes: ways to run a segment.
    """

    name: str
    brand: str
    built: Literal["cuda", "hip"]
    hiding: tuple[str, ...]
    lacks: Callable[[Hardware, Need], str]
    modes: tuple[str, ...]

    @property
    def provider(self) -> str:
        """``backend:name``."""
        return f"backend:{self.name}"

    @property
    def origin(self) -> str:
        """The distribution and its version."""
        dist = f"hardpoint-{self.name}"
        return f"{dist} {version(dist)}"

    def format(self, mode: str) -> str:
        """The name of the format of artifacts of ``mode``."""
        return f"hardpoint-{self.name}/{mode}/1"


def capability(arch: str) -> tuple[int, int]:
    """``"sm_103"`` is (10, 3); a suffix as in ``"sm_90a"`` is left out.

    :raises ValueError: no architecture of CUDA's.
    """
    digits = arch.removeprefix("sm_").rstrip("af")
    if not arch.startswith("sm_") or len(digits) < 2 or not digits.isdigit():
        raise ValueError(f"{arch!r} is no architecture of CUDA's")
    return int(digits[:-1]), int(digits[-1])


# The compute capability from which on a device does it itself, and what that family is called.
# Sources: CUDA C++ Programming Guide, table of features by capability; Triton's own minimum, which
# PyTorch checks too (torch/utils/_triton.py).
_CUDA_NEEDS: dict[Need, tuple[tuple[int, int], str]] = {
    "fp16": ((5, 3), "arithmetic in float16"),
    "triton": ((7, 0), "code that Triton compiles (modes inductor and aot)"),
    "bf16": ((8, 0), "arithmetic in bfloat16"),
    "tf32": ((8, 0), "TF32"),
    "fp8": ((8, 9), "conversions from float8 in compiled code"),
}


def cuda_lacks(hardware: Hardware, need: Need) -> str:
    """Why an NVIDIA device does not do what is needed; ``""`` where it does."""
    least, what = _CUDA_NEEDS[need]
    found = capability(hardware.arch)
    if found >= least:
        return ""
    return (
        f"{what} needs compute capability {least[0]}.{least[1]}, and {hardware.name} has "
        f"{found[0]}.{found[1]}"
    )


CUDA = Vendor(
    name="cuda",
    brand="CUDA",
    built="cuda",
    hiding=("CUDA_VISIBLE_DEVICES",),
    lacks=cuda_lacks,
    modes=("eager", "inductor", "aot", "tensorrt"),
)

# Compiled kernels load 16 bytes at a time, and were compiled for inputs that begin on such an
# address, as everything does that PyTorch allocates. Views and tensors from elsewhere need not.
ALIGNMENT = 16

UNVERIFIED = (
    "written against PyTorch 2.13's API and exercised without a device only: no result of it has "
    "been seen on real hardware (tests/bench/cuda.py is for whoever has some)"
)
