"""The machine that figures come from, described."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hardpoint
from hardpoint.measuring import processors
from hardpoint.measuring.limits import free_memory, total_memory

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

# Instruction sets that decide about speed, by the kernel's names.
_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)


def processor() -> dict[str, Any]:
    """Name, usable processors and cores, instruction sets. Imports no torch."""
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "name": info.get("model name") or platform.processor() or platform.machine(),
        "processors": len(processors.usable()) or os.cpu_count() or 1,
        "cores": processors.cores(),
        "instruction_sets": [name for name in _SETS if name in flags],
    }


def describe(registry: Registry, threads: int) -> dict[str, Any]:
    """JSON-serializable: processor, memory, load, threads, versions of all that takes part.

    :param threads: that each measured process computes with.
    """
    import torch

    dists = {r.dist for r in registry.records("backend") if r.dist}
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": processor(),
        "memory_bytes": total_memory(),
        "free_bytes": free_memory(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_capability": torch.backends.cpu.get_cpu_capability(),
        "hardpoint": hardpoint.__version__,
        "plugins": {name: importlib.metadata.version(name) for name in sorted(dists)},
        "sdks": _requirements(dists),
    }


def _requirements(dists: set[str]) -> dict[str, str]:
    """Versions of what the plugins need beside torch and the core: their SDKs."""
    from hardpoint.measuring.stamps import requirements

    found: dict[str, str] = {}
    for dist in sorted(dists):
        found |= requirements(dist)
    return {name: version for name, version in found.items() if name not in ("torch", "hardpoint")}


def _cpuinfo() -> dict[str, str]:
    """The first processor's block of Linux' ``/proc/cpuinfo``."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    block = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
