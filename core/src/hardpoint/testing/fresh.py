"""What a check's process of its own does with a package that the kit saved. Imported there: light.

The job comes as JSON: ``package`` and ``tensors`` (files), ``provider``, ``config`` (for ``open``)
and ``limit`` (greatest accepted error).
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hardpoint.numerics import compare
from hardpoint.package.load import load_package
from hardpoint.registry.policy import Policy
from hardpoint.registry.registry import Registry
from hardpoint.runtime.model import CompiledModel

Tensors = Sequence[torch.Tensor]


class Job:
    """A job, read in the process that does it."""

    def __init__(self, text: str) -> None:
        self._facts: dict[str, Any] = json.loads(text)
        key = self._facts["provider"]
        self.registry = Registry(policy=Policy(allow=(key,)))
        self.registry.configure("backend", key.partition(":")[2], self._facts["config"])
        tensors = torch.load(self._facts["tensors"], weights_only=True)
        self.inputs: list[list[torch.Tensor]] = tensors["inputs"]
        self.expected: list[list[torch.Tensor]] = tensors["expected"]

    @property
    def limit(self) -> float:
        """The greatest accepted error."""
        return float(self._facts["limit"])

    def load(self) -> CompiledModel:
        """The package, with its provider alone."""
        return load_package(Path(self._facts["package"]), registry=self.registry)

    def error(self, model: CompiledModel, call: int) -> float:
        """Run call ``call``; how far its results are from the expected ones."""
        return distance(model.run(self.inputs[call]), self.expected[call])


def distance(got: Tensors, want: Tensors) -> float:
    """The greatest error of the results of a call; infinite where they do not match at all."""
    if len(got) != len(want):
        return float("inf")
    errors = (compare(a, b).error for a, b in zip(got, want, strict=True))
    return max(errors, default=0.0)


def resident_bytes() -> int | None:
    """Memory that this process holds; ``None`` where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int | None:
    """How many file descriptors are open; ``None`` where the system does not tell."""
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return None


def threads() -> int:
    """How many threads run, those of native libraries included where the system tells."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()
