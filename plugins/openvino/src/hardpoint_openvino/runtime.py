"""OpenVINO's Python package, imported without its reporter.

``import openvino`` imports ``openvino_telemetry`` where it is installed, which starts a thread that
the process has to wait for, settles multiprocessing's way to start processes, and reports each use
over the network. OpenVINO and NNCF do without it where it cannot be imported.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

_REPORTER = "openvino_telemetry"


@contextlib.contextmanager
def unreported() -> Iterator[None]:
    """What is imported inside finds no reporter; one that the application has already stays."""
    if _REPORTER in sys.modules:
        yield
        return
    hidden: dict[str, Any] = sys.modules
    hidden[_REPORTER] = None
    try:
        yield
    finally:
        if sys.modules.get(_REPORTER, ...) is None:
            del sys.modules[_REPORTER]


with unreported():
    import openvino as ov
    from openvino import opset14 as op

__all__ = ["op", "ov", "unreported"]
