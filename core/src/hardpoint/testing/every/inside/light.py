"""Load a provider, and note what that imports and how long it takes."""

from __future__ import annotations

import sys
import time
from typing import Any

from hardpoint import Kind, Registry


def main(kind: Kind, name: str, config: str, profiled: str = "") -> dict[str, Any]:
    """Milliseconds, and the modules that were imported.

    :param profiled: ``"profiled"``: under ``python -X importtime``, whose lines about the provider
        follow a line ``== load ==`` on stderr.
    """
    registry = Registry()
    record = registry.record(kind, name)  # discovery is the host's expense
    before = set(sys.modules)
    start = time.perf_counter()
    if profiled:
        sys.stderr.write("== load ==\n")
        sys.stderr.flush()
        __import__(record.module.partition(":")[0])  # importlib's own way in is not profiled
    registry.load(kind, name)
    took = time.perf_counter() - start
    return {"ms": round(took * 1e3, 3), "modules": sorted(set(sys.modules) - before)}
