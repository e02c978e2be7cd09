"""Opening ONNX Runtime: never by its own choice of provider, threads or fallback."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from hardpoint_onnxruntime.options import Options

CPU = "CPUExecutionProvider"
_ERROR = 3  # ONNX Runtime's severity: its warnings are about graphs that work
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}


@functools.cache
def runtime() -> Any:
    """The module ``onnxruntime``, whichever distribution it comes from."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERROR)
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def session_options(options: Options, threads: int, provider: str) -> Any:
    """Settings of a session: what the caller chose, and nothing left to chance."""
    ort = runtime()
    made = ort.SessionOptions()
    made.log_severity_level = _ERROR
    made.intra_op_num_threads = threads
    made.inter_op_num_threads = 1 if options.execution == "sequential" else threads
    made.execution_mode = (
        ort.ExecutionMode.ORT_SEQUENTIAL
        if options.execution == "sequential"
        else ort.ExecutionMode.ORT_PARALLEL
    )
    made.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, _LEVELS[options.optimization]
    )
    spinning = "1" if options.spinning else "0"
    made.add_session_config_entry("session.intra_op.allow_spinning", spinning)
    made.add_session_config_entry("session.inter_op.allow_spinning", spinning)
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider != CPU and not options.cpu_nodes:
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return made


def open_session(
    model: bytes,
    settings: Any,
    providers: Sequence[tuple[str, Mapping[str, str]]],
) -> Any:
    """A session on exactly these providers.

    :param providers: in order, each with its options; the CPU's is added by ONNX Runtime itself.
    :raises RuntimeError: the first one did not start, and ONNX Runtime fell back to another.
    """
    ort = runtime()
    session = ort.InferenceSession(model, settings, providers=[(n, dict(o)) for n, o in providers])
    # It prints "EP Error" and starts again on the CPU: that is not what was asked for.
    session.disable_fallback()
    got = session.get_providers()
    wanted = providers[0][0]
    if not got or got[0] != wanted:
        raise RuntimeError(
            f"{wanted} did not start; ONNX Runtime fell back to {', '.join(got) or 'nothing'}"
        )
    return session
