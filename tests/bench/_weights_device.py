"""The scenario of tests/bench/weights.py that needs a GPU: whether there is one, and its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from _limits import timed

_STAGE = 64 << 20
T = TypeVar("T")


def missing() -> str:
    """Why nothing can be measured here, or ``""``."""
    if not torch.backends.cuda.is_built():
        return f"PyTorch {torch.__version__} is not built for CUDA"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA GPU"
    return ""


def ready() -> None:
    """What the first use of a GPU costs, nobody's loader should be billed for."""
    torch.zeros(1, device="cuda").add_(1)
    torch.cuda.synchronize()


def arrived(load: Callable[[], T]) -> Callable[[], T]:
    """``load``, until all that it set on its way to the GPU is there."""

    def run() -> T:
        found = load()
        torch.cuda.synchronize()
        return found

    return run


def limit(nbytes: int) -> float:
    """Seconds to copy ``nbytes`` from pinned memory to the GPU, 64 MiB at a time."""
    pinned = torch.ones(_STAGE, dtype=torch.uint8, pin_memory=True)
    goal = torch.empty(_STAGE, dtype=torch.uint8, device="cuda")
    turns = max(1, min(nbytes // _STAGE, 16))

    def copy() -> None:
        for _ in range(turns):
            goal.copy_(pinned, non_blocking=True)
        torch.cuda.synchronize()

    return min(timed(copy) for _ in range(5)) * nbytes / (turns * _STAGE)


def speeds(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """GB/s of each loader at its best."""
    best = {
        case.partition(": ")[2]: max(r["bytes"] / r["handles"] / 1e9 for r in results)
        for case, results in found.items()
    }
    return "- " + ", ".join(f"{name}: {speed:.1f} GB/s" for name, speed in best.items())
