"""Load a package, in any process, without unpickling.

What compiles, saves or reads the program is imported when it is asked for: PyTorch's serializer and
sympy take a second to import, and a package that merely runs needs neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hardpoint.errors import PackageError
from hardpoint.interfaces.backend import Artifact
from hardpoint.interfaces.kinds import Target
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import FORMAT, check_manifest
from hardpoint.package.tensors import tensor_from_ref
from hardpoint.planning.devices import find_device
from hardpoint.program import signature as signatures
from hardpoint.program.signature import Signature
from hardpoint.runtime import schedule as schedules
from hardpoint.runtime.model import CompiledModel, ModelFacts
from hardpoint.runtime.opening import open_artifact
from hardpoint.runtime.step import OpenedSegment

if TYPE_CHECKING:
    from hardpoint.program.program import Program
    from hardpoint.registry.registry import Registry


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
            program=lambda: _program(archive, signature, inputs, str(manifest["name"])),
            examples=inputs,
            expected=tuple(tensor_from_ref(archive, ref) for ref in examples["expected"]),
        ),
        emit=registry.emit,
        write=_save,
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


def _program(
    archive: Archive, signature: Signature, inputs: tuple[torch.Tensor, ...], name: str
) -> Program:
    from hardpoint.package.pt2 import read_program
    from hardpoint.program.program import Program

    return Program(read_program(archive), signature, inputs, name)


def _save(model: CompiledModel, path: Path) -> Path:
    from hardpoint.package.save import save_package

    return save_package(model, path)
