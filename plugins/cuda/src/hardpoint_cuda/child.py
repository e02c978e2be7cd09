"""Ask the driver for its devices in a process of its own, which may crash, hang or be poisoned.

Run as ``python -m hardpoint_cuda.child``: prints one JSON object. Starting CUDA is the one sure
test of a driver, and nothing that a host process should have done to it by a probe.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SECONDS = 120


class ChildError(Exception):
    """The child gave no answer; the text says why."""


def ask(seconds: float = SECONDS) -> dict[str, Any]:
    """What :func:`look` finds, in a new process.

    :raises ChildError: it crashed, hung, or found no device that works.
    """
    command = [sys.executable, "-m", "hardpoint_cuda.child"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise ChildError(f"starting the driver took longer than {seconds:g} s") from None
    if done.returncode < 0:
        raise ChildError(f"starting the driver ended the process with signal {-done.returncode}")
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ChildError(f"the process that starts the driver failed: {last[:300]}")
    found: dict[str, Any] = json.loads(lines[-1])
    if "error" in found:
        raise ChildError(str(found["error"]))
    return found


def look() -> dict[str, Any]:
    """Start the driver, compute something on each device, and describe them."""
    import torch

    if not torch.cuda._is_compiled():
        return {"error": f"PyTorch {torch.__version__} is built without CUDA and without ROCm"}
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        devices = [_device(index) for index in range(torch.cuda.device_count())]
    except (RuntimeError, AssertionError) as error:
        return {"error": (str(error).strip().splitlines() or ["no message"])[0][:300]}
    return {"devices": devices, "kernels": torch.cuda.get_arch_list()}


def _device(index: int) -> dict[str, Any]:
    import torch

    facts = torch.cuda.get_device_properties(index)
    gcn = str(getattr(facts, "gcnArchName", "")).split(":")[0]
    found = {
        "index": index,
        "name": facts.name,
        "memory": facts.total_memory,
        "arch": gcn if torch.version.hip else f"sm_{facts.major}{facts.minor}",
    }
    try:
        total = torch.arange(1000, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        found["error"] = str(error).strip().splitlines()[0][:300]
    else:
        if total != 499500:
            found["error"] = f"it adds the numbers below 1000 up to {total}, not to 499500"
    return found


if __name__ == "__main__":
    print(json.dumps(look()))  # noqa: T201 - its answer to the parent
