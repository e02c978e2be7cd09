"""AMD's devices as the kernel's driver lists them, without starting HIP."""

from __future__ import annotations

import os
from pathlib import Path

from hardpoint import Device
from hardpoint_rocm.vendor import ROCM

NODES = Path("/sys/class/kfd/kfd/topology/nodes")


def listing(nodes: Path = NODES) -> list[Device] | str | None:
    """The devices; why there are none; or ``None`` where this list cannot be read off.

    So it is where variables hide devices (ROCr takes them away first, then HIP), where several
    kinds are mixed, and on Windows, which has no such list.
    """
    if os.name == "nt" or any(name in os.environ for name in ROCM.hiding):
        return None
    if not nodes.is_dir():
        return f"AMD's driver (amdgpu) is not loaded: {nodes} does not exist"
    found: list[Device] = []
    for node in sorted(nodes.iterdir(), key=lambda path: (len(path.name), path.name)):
        facts = _facts(node / "properties")
        if facts.get("simd_count", 0) > 0:  # processors are nodes as well, without SIMD units
            found.append(_device(len(found), node, facts))
    if len({device.properties["arch"] for device in found}) > 1:
        return None
    return found


def _facts(path: Path) -> dict[str, int]:
    """``properties`` is a name and a number a line; it is empty where access is denied."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _device(index: int, node: Path, facts: dict[str, int]) -> Device:
    arch = architecture(facts.get("gfx_target_version", 0))
    memory = 0
    for bank in sorted((node / "mem_banks").glob("*/properties")):
        values = _facts(bank)
        if values.get("heap_type") in (1, 2):  # the device's own memory, visible to the host or not
            memory += values.get("size_in_bytes", 0)
    return Device(str(index), f"AMD {arch}", f"cuda:{index}", memory or None, {"arch": arch})


def architecture(version: int) -> str:
    """``90402`` is gfx942: major, minor, stepping, the last two as one hexadecimal digit each."""
    major, minor, step = version // 10000, version // 100 % 100, version % 100
    return f"gfx{major}{minor:x}{step:x}"
