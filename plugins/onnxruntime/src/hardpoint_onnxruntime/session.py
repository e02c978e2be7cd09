"""Opening ONNX Runtime: never by its own choice of provider, threads or fallback."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from hardpoint import Device
from hardpoint_onnxruntime import plugins
from hardpoint_onnxruntime.options import Options
from hardpoint_onnxruntime.providers import CPU, provider_of

# No such folder is on any machine.
NO_FOLDER = str(Path("/hardpoint/no/such/folder"))
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
    # Weights are handed over by name: a file that a model names is never read.
    made.add_session_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)
    made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if provider != CPU and not options.cpu_nodes:
        made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return made


def open_session(model: bytes, settings: Any, device: Device) -> Any:
    """A session on the provider of ``device``, and on no other behind its back.

    :raises RuntimeError: the provider did not start, and ONNX Runtime fell back to another.
    """
    name, options = provider_of(device)
    if "plugin" in device.properties:
        settings.add_provider_for_devices([_plugin(device)], options)
        session = runtime().InferenceSession(model, settings, enable_fallback=False)
    else:
        session = _on(model, settings, name, options)
    got = session.get_providers()
    if not got or got[0] != name:
        raise RuntimeError(
            f"{name} did not start; ONNX Runtime fell back to {', '.join(got) or 'nothing'}"
        )
    return session


def _on(model: bytes, settings: Any, name: str, options: dict[str, str]) -> Any:
    ort = runtime()
    if name not in ort.get_available_providers():  # else it would warn, and use the CPU
        raise RuntimeError(f"{name} is not in the installed wheel of ONNX Runtime")
    # Else it prints "EP Error" and starts again on the CPU: that is not what was asked for.
    return ort.InferenceSession(model, settings, providers=[(name, options)], enable_fallback=False)


def _plugin(device: Device) -> Any:
    """ONNX Runtime's own object for a device of a plugin provider."""
    own = [d for d in plugins.found() if d.ep_name == device.properties["provider"]]
    return own[int(str(device.properties["index"]))]
