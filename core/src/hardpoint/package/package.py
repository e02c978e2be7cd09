"""Save a compiled model as a package, and load it again, in any process, without unpickling."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import hardpoint
from hardpoint.errors import (
    PackageError,
)
from hardpoint.events import Event
from hardpoint.interfaces.backend import Artifact
from hardpoint.interfaces.kinds import Target
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import check_manifest, finish_manifest
from hardpoint.package.pt2 import TensorStore, read_program, tensor_from_ref, write_program
from hardpoint.package.writer import ArchiveWriter
from hardpoint.planning.planner import find_device
from hardpoint.program import signature as signatures
from hardpoint.program.program import Program
from hardpoint.runtime import schedule as schedules
from hardpoint.runtime.model import CompiledModel, ModelFacts
from hardpoint.runtime.opening import open_artifact
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.registry.registry import Registry

FORMAT = "hardpoint/1"
# Not under extra/: PyTorch reads every entry there as UTF-8 text, and fails on binary ones.
ARTIFACTS = "data/hardpoint/artifacts"
# Example inputs and their eager results travel along up to this size, so that a package can be
# verified where it is loaded.
EXAMPLES_LIMIT = 16 * 2**20


def save_package(model: CompiledModel, path: Path) -> Path:
    """Write ``model`` to ``path``: the old file or the whole new one is there, never a part.

    :raises PackageError: it cannot be written.
    """
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
    model.emit(Event("packaged", data={"program": model.facts.name, "path": str(path)}))
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


def load_package(
    path: Path,
    *,
    registry: Registry,
    verify: Literal["full", "quick"] = "full",
) -> CompiledModel:
    """Open a package on the targets that it was compiled for.

    :param verify: check every hash, or all but the weights'.
    :raises PackageError: damaged, hostile, or no hardpoint package.
    :raises ProviderError: a backend that it needs is missing, denied, broken or unavailable here.
    :raises ArtifactError: an artifact was made for another machine or version.
    """
    archive = Archive.open(path)
    manifest = check_manifest(archive, verify)
    if manifest.get("format") != FORMAT:
        raise PackageError(
            f"{path} is a package of another format",
            cause=f"it says {manifest.get('format')!r}, this hardpoint reads {FORMAT!r}",
            remedy="install the version of hardpoint that wrote it (see `hardpoint inspect`)",
        )
    try:
        return _assemble(path, archive, manifest, registry)
    except (KeyError, TypeError, AttributeError) as error:
        raise PackageError(
            f"{path} is not a usable package",
            cause=f"its manifest is malformed: {type(error).__name__}: {error}",
            remedy="get the file again from its source, or save it again",
        ) from error


def _assemble(
    path: Path, archive: Archive, manifest: Mapping[str, Any], registry: Registry
) -> CompiledModel:
    signature = signatures.from_json(manifest["signature"])
    schedule = schedules.from_json(manifest["schedule"])
    described = {a["segment"]: a for a in manifest["artifacts"]}
    missing = {s.segment for s in schedule.steps} - described.keys()
    if missing or len(described) != len(manifest["artifacts"]):
        raise PackageError(
            f"{path} is not a usable package", cause="its artifacts do not fit its plan"
        )
    opened: list[OpenedSegment] = []
    try:
        for entry in described.values():
            opened.append(_open(archive, entry, registry))
    except BaseException:
        for segment in opened:
            segment.executable.close()
        raise
    held = {name: tensor_from_ref(archive, ref).clone() for name, ref in manifest["held"].items()}
    if held.keys() != schedule.held.keys():
        raise PackageError(
            f"{path} is not a usable package", cause="its state does not fit its plan"
        )
    examples = manifest["examples"]
    inputs = tuple(tensor_from_ref(archive, ref) for ref in examples["inputs"])
    return CompiledModel(
        signature=signature,
        schedule=schedule,
        segments=tuple(opened),
        held=held,
        facts=ModelFacts(
            name=str(manifest["name"]),
            plan=manifest["plan"],
            verification=manifest["verification"],
            program=lambda: Program(
                read_program(archive), signature, inputs, str(manifest["name"])
            ),
            examples=inputs,
            expected=tuple(tensor_from_ref(archive, ref) for ref in examples["expected"]),
        ),
        emit=registry.emit,
        write=save_package,
    )


def _open(archive: Archive, entry: Mapping[str, Any], registry: Registry) -> OpenedSegment:
    target = Target.parse(entry["target"])
    artifact = Artifact(
        format=str(entry["format"]),
        files={str(name): archive.view(where) for name, where in entry["files"].items()},
        weights={str(n): tensor_from_ref(archive, ref) for n, ref in entry["weights"].items()},
        metadata=entry["metadata"],
    )
    device = find_device(registry, target)
    return open_artifact(str(entry["segment"]), target, device, artifact, registry)
