"""The bindings beneath ``onnxruntime.IOBinding``, whose checks cost as much as a small call.

They are private to ONNX Runtime: hence the bound on its version, and nothing else here uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hardpoint_onnxruntime.session import runtime


def place(kind: str, index: int) -> Any:
    """Where memory lies, as bindings take it."""
    return runtime().OrtDevice.make(kind, index)._get_c_device()


def binding(session: Any) -> Any:
    """``bind_input`` and ``bind_output``: (name, place, element, shape, address)."""
    return session.io_binding()._iobinding


def runner(session: Any) -> Callable[[Any, Any], None]:
    """Runs with (binding, run options or ``None``)."""
    run: Callable[[Any, Any], None] = session._sess.run_with_iobinding
    return run
