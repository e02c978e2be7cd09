"""Plugin execution providers: shared libraries in distributions of their own.

They are called ``onnxruntime-ep-...`` and hold a module that says where the library lies.
https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/usage.html
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from pathlib import Path
from typing import Any

from hardpoint_onnxruntime.origin import in_words

# In the name of the folder that every installer writes, the name's hyphens are underscores.
# https://packaging.python.org/specifications/recording-installed-packages/
_PREFIX, _SUFFIX = "onnxruntime_ep_", ".dist-info"


def _modules() -> list[str]:
    """By the names of folders: to read the metadata of all that is installed takes as long as to
    open a small model.
    """
    found = set()
    for place in {Path(entry) for entry in sys.path}:
        names = os.listdir(place) if place.is_dir() and os.access(place, os.R_OK) else []  # noqa: PTH208  # names alone, of thousands
        for name in map(str.lower, names):
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX):
                found.add(name.removesuffix(_SUFFIX).partition("-")[0])
    return sorted(found)


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
