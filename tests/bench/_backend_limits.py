"""What this machine can do at most: the floor under a model's latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.mkldnn import to_mkldnn

# Bytes of a weight, and the arithmetic that multiplies it.
FORMS = {"fp32": (4.0, "fp32"), "bf16": (2.0, "bf16"), "fp16": (2.0, "bf16"),
         "int8": (1.0, "int8"), "int8w": (1.0, "fp32"), "int4w": (0.5, "fp32")}  # fmt: skip
# Seconds that each limit is looked for.
_LONG = 8.0


@dataclass(frozen=True)
class Work:
    """What one call of a model takes. :param flops: 0: not known. :param weights: how many."""

    flops: float
    weights: int


def work(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Work:
    """Counted by PyTorch on one call: products and convolutions, two for a multiply-add."""
    inside: list[float] = []  # of recurrent layers, which PyTorch does not count

    def count(layer: nn.Module, given: tuple[torch.Tensor, ...], _: object) -> None:
        steps = given[0].shape[0] * given[0].shape[1]
        inside.append(2.0 * steps * sum(p.numel() for p in layer.parameters() if p.dim() == 2))

    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, nn.RNNBase)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(*args, **kwargs)
    for hook in hooks:
        hook.remove()
    flops = counter.get_total_flops() + sum(inside)
    return Work(float(flops), sum(p.numel() for p in module.parameters()))


def machine_limits(threads: int) -> dict[str, float]:
    """FLOP/s of large products by arithmetic, and bytes a second that are read from memory."""
    torch.set_num_threads(threads)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        found[name] = 2 * 2048**3 / _best(lambda a=one, b=other: a @ b)  # type: ignore[misc]
    # PyTorch multiplies float32 with MKL, which takes no AVX-512 of another maker's processor: half
    # of what oneDNN reached on the machine of docs/benchmarks/backends.md.
    packed = to_mkldnn(nn.Linear(2048, 2048, bias=False).eval())
    given = torch.randn(2048, 2048).to_mkldnn()
    with torch.no_grad():
        found["fp32"] = max(found["fp32"], 2 * 2048**3 / _best(lambda: packed(given)))
    # What PyTorch reaches with int8 products depends on its build; the processor's dot product of
    # int8 does four times what its fused multiply-add of float32 does (VNNI), and with tiles (AMX)
    # twice what they do in bf16.
    found["int8"] = max(4 * found["fp32"], 2 * found["bf16"])
    large = torch.ones(1 << 27)
    found["bytes"] = large.nbytes / _best(lambda: large.sum())
    return found


def floor(work: dict[str, float], precision: str, limits: dict[str, float]) -> float:
    """Seconds that one call takes at least: to multiply, or to read each weight once."""
    size, arithmetic = FORMS[precision]
    return max(work["flops"] / limits[arithmetic], work["weights"] * size / limits["bytes"])


def _best(call: Callable[[], object]) -> float:
    """Of some seconds, as a shared machine is slow for one at a time."""
    call()
    seconds: list[float] = []
    until = time.perf_counter() + _LONG
    while time.perf_counter() < until or len(seconds) < 7:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
