"""What a manifest says, read whole and checked against itself before anything of it is used.

Hashes prove that a manifest is as it was written, not that an honest program wrote it: a count or a
name that does not fit must be refused here, and never be a raw error of a later call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch

from hardpoint.interfaces.backend import Artifact
from hardpoint.interfaces.kinds import Target
from hardpoint.package.archive import Archive
from hardpoint.package.integrity import ARTIFACTS, FORMAT
from hardpoint.package.refusal import MalformedError, refusing
from hardpoint.package.tensors import MappedTensors
from hardpoint.program import signature as signatures
from hardpoint.program.signature import Signature
from hardpoint.runtime import schedule as schedules
from hardpoint.runtime.schedule import Schedule


class Contents(NamedTuple):
    """A manifest, with its tensors mapped.

    :param artifacts: segment -> where it runs and what runs there.
    :param held: name of state or weight -> its value when the package was saved.
    :param examples: flat inputs; empty where they were too large.
    :param expected: eager PyTorch's flat results for them, or empty.
    """

    name: str
    signature: Signature
    schedule: Schedule
    plan: Mapping[str, Any]
    verification: Mapping[str, Any]
    artifacts: Mapping[str, tuple[Target, Artifact]]
    held: Mapping[str, torch.Tensor]
    examples: tuple[torch.Tensor, ...]
    expected: tuple[torch.Tensor, ...]


def read_contents(archive: Archive, manifest: Mapping[str, Any]) -> Contents:
    """Everything that ``manifest`` says.

    :param manifest: as :func:`hardpoint.package.integrity.check_manifest` gives it.
    :raises PackageError: another format, or parts that are malformed or do not fit each other.
    """
    with refusing(archive.path):
        if manifest.get("format") != FORMAT:
            raise MalformedError(
                f"its format is {manifest.get('format')!r:.100}; this hardpoint reads {FORMAT!r}",
                remedy="install the version of hardpoint that wrote it (see `hardpoint inspect`)",
            )
        try:
            contents = _read(archive, manifest)
        except (KeyError, TypeError, AttributeError) as error:
            raise MalformedError(
                f"its manifest is malformed: {type(error).__name__}: {error}"
            ) from error
        _check(contents)
        _check_devices(contents.signature)
        _check_verification(contents.verification)
    return contents


def _read(archive: Archive, manifest: Mapping[str, Any]) -> Contents:
    tensor = MappedTensors(archive).tensor
    artifacts: dict[str, tuple[Target, Artifact]] = {}
    for entry in manifest["artifacts"]:
        segment = str(entry["segment"])
        if segment in artifacts:
            raise MalformedError(f"it holds two artifacts of segment {segment!r:.100}")
        artifacts[segment] = (
            Target.parse(entry["target"]),
            Artifact(
                format=str(entry["format"]),
                files={name: _file(archive, where) for name, where in entry["files"].items()},
                weights={name: tensor(ref) for name, ref in entry["weights"].items()},
                metadata=_object(entry["metadata"]),
            ),
        )
        # Nobody opens it before `integrity` has compared the hashes of its files.
        object.__setattr__(artifacts[segment][1], "intact", True)
    examples = manifest["examples"]
    return Contents(
        name=str(manifest["name"]),
        signature=signatures.from_json(manifest["signature"]),
        schedule=schedules.from_json(manifest["schedule"]),
        plan=_object(manifest["plan"]),
        verification=_object(manifest["verification"]),
        artifacts=artifacts,
        held={name: tensor(ref) for name, ref in manifest["held"].items()},
        examples=tuple(map(tensor, examples["inputs"])),
        expected=tuple(map(tensor, examples["expected"])),
    )


def entries_of(manifest: Mapping[str, Any], segments: Collection[str]) -> set[str]:
    """Names of the entries that the artifacts of ``segments`` lie in."""
    found: set[str] = set()
    for entry in manifest["artifacts"]:
        if entry["segment"] in segments:
            found.update(entry["files"].values())
            found.update(ref["entry"] for ref in entry["weights"].values())
    return found


def _file(archive: Archive, where: str) -> memoryview:
    """Only from where files of artifacts are: all there is hashed before one of them is opened."""
    if not where.startswith(f"{ARTIFACTS}/"):
        raise MalformedError(f"a file of an artifact lies at {where!r:.100}, not in {ARTIFACTS!r}")
    return archive.view(where)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.100} stands where an object should stand")
    return value


def _check(contents: Contents) -> None:
    """Counts and names are the same wherever the manifest tells them."""
    signature, schedule = contents.signature, contents.schedule
    if {step.segment for step in schedule.steps} - contents.artifacts.keys():
        raise MalformedError("its artifacts do not fit its plan")
    if contents.held.keys() != schedule.held.keys():
        raise MalformedError("its state does not fit its plan")
    takes, gives = len(signature.inputs), len(signature.results)
    examples, expected = len(contents.examples), len(contents.expected)
    if (schedule.inputs, len(schedule.results)) != (takes, gives):
        raise MalformedError(
            f"its program has {takes} inputs and {gives} results, its plan {schedule.inputs} and "
            f"{len(schedule.results)}"
        )
    # Results can be compared only where there are inputs to run on.
    if examples not in (0, takes) or expected not in (0, gives) or (expected and examples < takes):
        raise MalformedError(
            f"its program has {takes} inputs and {gives} results, its examples {examples} and "
            f"{expected}"
        )


def _check_devices(signature: Signature) -> None:
    for spec in (*signature.inputs, *signature.results):
        try:
            torch.device(spec.device)
        except (RuntimeError, ValueError) as error:
            raise MalformedError(
                f"{spec.name} lives on the device {spec.device!r:.100}, which PyTorch "
                f"{torch.__version__} does not have"
            ) from error


def _check_verification(figures: Mapping[str, Any]) -> None:
    """Empty, or with an error that can be shown; one that is infinite is stored as a string."""
    error = figures.get("max_error", 0.0 if not figures else None)
    if type(error) not in (int, float) and error not in ("inf", "nan"):
        raise MalformedError(f"its verification says max_error = {error!r:.100}")
