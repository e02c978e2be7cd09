"""Plugin execution providers: shared libraries in distributions of their own.

They are called ``onnxruntime-ep-...`` and hold a module that says where the library lies.
https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/usage.html
"""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import distributions
from typing import Any

from hardpoint_onnxruntime.origin import in_words

_PREFIX = "onnxruntime-ep-"


def _modules() -> list[str]:
    names = {(d.metadata["Name"] or "").lower().replace("_", "-") for d in distributions()}
    return sorted(name.replace("-", "_") for name in names if name.startswith(_PREFIX))


@functools.cache
def register() -> tuple[str, ...]:
    """Make the installed ones known to ONNX Runtime, once a process.

    :returns: of those that could not be, the reason in words.
    """
    import onnxruntime

    failed = []
    for name in _modules():
        try:
            library = importlib.import_module(name).get_library_path()
            onnxruntime.register_execution_provider_library(name, library)
        except Exception as error:  # one broken plugin must not hide the other providers
            failed.append(f"the plugin {name} was not taken: {in_words(error, 200)}")
    return tuple(failed)


def found() -> list[Any]:
    """Devices of all registered providers, as ``onnxruntime.OrtEpDevice``."""
    import onnxruntime

    register()
    return list(onnxruntime.get_ep_devices())
