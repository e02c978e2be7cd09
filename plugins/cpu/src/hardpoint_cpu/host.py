"""This machine's processor, memory and C++ compiler, told without importing torch."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import sys
from pathlib import Path

from hardpoint import Device

NODES = Path("/sys/devices/system/node")
COMPILER_REMEDY = "install a C++ compiler (Debian: apt install g++), or name yours in CXX"

# AOTInductor's names of instruction sets -> the kernel's flags that it relies on
# (torch/_inductor/cpu_vec_isa.py lists what each is compiled with).
_ISA_FLAGS = {
    "AVX2": {"avx2", "fma", "f16c"},
    "AVX512": {"avx512f", "avx512dq", "avx512vl", "avx512bw", "fma"},
    "AVX512_VNNI": {"avx512_vnni", "avx512vl"},
    "AVX512_BF16": {"avx512_bf16"},
    "AMX_TILE": {"amx_tile", "amx_bf16", "amx_int8"},
    "AMX_FP16": {"amx_fp16"},
    "NEON": {"asimd"},
    "ASIMD": {"asimd"},
    "SVE256": {"sve", "asimd"},
}


def system() -> str:
    """The operating system, in AOTInductor's spelling, e.g. ``"linux"``."""
    return sys.platform


def machine() -> str:
    """The processor's family, in AOTInductor's spelling, e.g. ``"x86_64"``."""
    return platform.machine()


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's block of ``/proc/cpuinfo``; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    block = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def isa() -> frozenset[str]:
    """Instruction sets of this processor, in AOTInductor's names.

    Empty where the system does not tell: then nothing built for a named set is accepted, except
    that every 64-bit Arm processor has NEON.
    """
    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    if machine() in ("aarch64", "arm64"):
        flags.add("asimd")
    return frozenset(name for name, needed in _ISA_FLAGS.items() if needed <= flags)


def has_vnni() -> bool:
    """Whether the processor sums up products of 8-bit integers in 32 bits."""
    info = _cpuinfo()
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(info.get("flags", "").split()))


def numa_nodes(folder: Path | None = None) -> int:
    """Parts of the main memory that are near to some cores and far from others; 1: all is near."""
    return max(1, sum(1 for path in (folder or NODES).glob("node[0-9]*") if path.is_dir()))


def compiler_missing() -> str | None:
    """Why Inductor would find no C++ compiler here; ``None`` where it finds one."""
    named = os.environ.get("CXX")
    wanted = [named] if named else ["clang++" if sys.platform == "darwin" else "g++"]
    if any(shutil.which(name) for name in wanted):
        return None
    where = "named in CXX " if named else ""
    return f"the C++ compiler {wanted[0]!r} {where}is not on PATH"


def _memory() -> int | None:
    """Bytes of main memory, where the system tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _usable_cores() -> int:
    """Cores that this process may use, which a container may have cut down."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device() -> Device:
    """The CPU as the one device of this backend."""
    name = _cpuinfo().get("model name") or platform.processor() or machine()
    return Device(
        id="0",
        name=name,
        torch_device="cpu",
        memory=_memory(),
        properties={
            "machine": machine(),
            "isa": sorted(isa()),
            "cores": _usable_cores(),
            "numa_nodes": numa_nodes(),
        },
    )
