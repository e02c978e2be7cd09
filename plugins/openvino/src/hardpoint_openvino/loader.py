"""From an artifact to an executable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from hardpoint import Artifact, Device, Executable
from hardpoint_openvino import sdk, stored
from hardpoint_openvino.compiler import BLOB, FORMAT, host_facts
from hardpoint_openvino.executable import OpenVinoExecutable
from hardpoint_openvino.facts import facts
from hardpoint_openvino.origin import artifact_error, in_words
from hardpoint_openvino.runtime import ov

_AGAIN = "compile the segment again"


def load(artifact: Artifact, device: Device) -> Executable:
    """Open an artifact: by its blob where that was compiled for this very machine, else compiled.

    The facts say which (``started_from``), and why a blob was left.

    :raises ArtifactError: of another format or device, or damaged.
    """
    if artifact.format != FORMAT:
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the openvino backend reads",
            cause=f"it reads {FORMAT}",
            remedy="open it with the backend that made it, or compile the segment again",
        )
    problem = sdk.unknown(device)
    if problem:
        raise artifact_error(problem[0], remedy=problem[1])
    name = device.id
    known = artifact.metadata
    settings = known.get("settings")
    if not isinstance(settings, Mapping) or not isinstance(known.get("sha256"), Mapping):
        raise artifact_error("the artifact lacks its metadata", remedy=_AGAIN)
    _check_device(str(known.get("device")), name)
    started: dict[str, object] = {"started_from": "model"}
    reason = _why_no_blob(artifact, name)
    held: list[Any] = [artifact]
    try:
        if reason:
            model, arrays = _model(artifact)
            held += arrays
            compiled = sdk.core().compile_model(model, name, dict(settings))
            if BLOB in artifact.files:
                started["blob_left"] = reason
        else:
            _check(artifact, BLOB)
            blob = stored.over(artifact.files[BLOB])
            compiled = sdk.core().import_model(blob, name, dict(settings))
            started["started_from"] = "blob"
    except RuntimeError as error:
        raise artifact_error(
            f"OpenVINO cannot open the artifact on {name}", cause=in_words(error), remedy=_AGAIN
        ) from error
    found = facts(compiled, str(known.get("precision")))
    return OpenVinoExecutable(compiled, {**found, **started}, _names(known), held)


def _names(known: Mapping[str, object]) -> list[str]:
    names = known.get("indices")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise artifact_error("the artifact does not name its indices", remedy=_AGAIN)
    return names


def _check_device(made_for: str, name: str) -> None:
    """A model is compiled again for each machine, but for the kind of device that was asked."""
    if made_for.partition(".")[0] != name.partition(".")[0]:
        raise artifact_error(
            f"the artifact was compiled for {made_for}, not for {name}",
            cause="what a device supports, and how it rounds, was decided for that one",
            remedy=_AGAIN,
        )


def _why_no_blob(artifact: Artifact, name: str) -> str:
    """Why the compiled blob cannot be used here, or ``""``."""
    if BLOB not in artifact.files:
        return "there is none"
    made: Any = artifact.metadata.get("host")
    here = host_facts(name)
    if not isinstance(made, Mapping):
        return "it does not say what it was compiled for"
    other = [key for key in here if made.get(key) != here[key]]
    return f"it was compiled for another {', '.join(other)}" if other else ""


def _model(artifact: Artifact) -> tuple[ov.Model, list[Any]]:
    for file in (stored.XML, stored.BIN):
        _check(artifact, file)
    return stored.read(
        bytes(artifact.files[stored.XML]),
        artifact.files[stored.BIN],
        artifact.weights,
        artifact.metadata.get("weights"),
    )


def _check(artifact: Artifact, name: str) -> None:
    """Refuse a file that is missing or damaged, before OpenVINO reads it.

    :raises ArtifactError: with the reason.
    """
    if name not in artifact.files:
        raise artifact_error(f"the artifact has no file {name!r}", remedy=_AGAIN)
    hashes: Any = artifact.metadata["sha256"]
    data = artifact.files[name]
    if not artifact.intact and hashlib.sha256(data).hexdigest() != hashes.get(name):
        raise artifact_error(
            f"{name} is damaged",
            cause="its SHA-256 is not the one that was recorded when it was compiled",
            remedy="copy the package again, or compile the segment again",
        )
