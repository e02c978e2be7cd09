"""Save a compiled model as a package: one PT2 archive, written atomically."""

from __future__ import annotations

import platform
import time
from pathlib import Path

import torch

import hardpoint
from hardpoint.events import Event
from hardpoint.package.integrity import ARTIFACTS, FORMAT, finish_manifest
from hardpoint.package.pt2 import write_program
from hardpoint.package.tensors import TensorStore
from hardpoint.package.writer import ArchiveWriter
from hardpoint.runtime.model import CompiledModel
from hardpoint.runtime.step import OpenedSegment

# Example inputs and their eager results travel along up to this size, so that a package can be
# verified where it is loaded.
EXAMPLES_LIMIT = 16 * 2**20


def save_package(model: CompiledModel, path: Path) -> Path:
    """Write ``model`` to ``path``: the old file or the whole new one is there, never a part.

    :raises PackageError: it cannot be written.
    """
    start = time.perf_counter()
    program = model.facts.program()
    examples = (*model.facts.examples, *model.facts.expected)
    small = sum(t.nbytes for t in examples) <= EXAMPLES_LIMIT
    with ArchiveWriter(path) as writer:
        store = TensorStore(writer)
        write_program(writer, program.exported, store=store)
        manifest = {
            "format": FORMAT,
            "created": {
                "hardpoint": hardpoint.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "platform": f"{platform.system()} {platform.machine()}",
            },
            "name": model.facts.name,
            "signature": model.signature.to_json(),
            "schedule": model.schedule.to_json(),
            "plan": dict(model.facts.plan),
            "artifacts": [_write_artifact(writer, store, s) for s in model.segments],
            "held": {name: store.put(tensor) for name, tensor in model.held.items()},
            "examples": {
                "inputs": [store.put(t) for t in model.facts.examples] if small else [],
                "expected": [store.put(t) for t in model.facts.expected] if small else [],
            },
            "verification": dict(model.verification),
        }
        finish_manifest(writer, manifest)
    facts = {"program": model.facts.name, "path": str(path), "seconds": time.perf_counter() - start}
    model.emit(Event("packaged", data=facts))
    return path


def _write_artifact(
    writer: ArchiveWriter, store: TensorStore, segment: OpenedSegment
) -> dict[str, object]:
    artifact = segment.artifact
    files = {}
    for name, data in artifact.files.items():
        entry = f"{ARTIFACTS}/{segment.id}/{name}"
        writer.add(entry, data)
        files[name] = entry
    return {
        "segment": segment.id,
        "target": str(segment.target),
        "device": segment.device.id,
        "provider": segment.provider,
        "origin": segment.origin,
        "format": artifact.format,
        "files": files,
        "weights": {name: store.put(tensor) for name, tensor in artifact.weights.items()},
        "metadata": dict(artifact.metadata),
    }
