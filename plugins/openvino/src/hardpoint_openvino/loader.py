"""From an artifact to an executable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from hardpoint import Artifact, Device, Executable
from hardpoint_openvino import sdk, stored
from hardpoint_openvino.compiler import FORMAT, compile_model
from hardpoint_openvino.executable import OpenVinoExecutable
from hardpoint_openvino.facts import facts
from hardpoint_openvino.origin import artifact_error

_AGAIN = "compile the segment again"


def load(artifact: Artifact, device: Device) -> Executable:
    """Open an artifact.

    :raises ArtifactError: of another format or device, or damaged.
    """
    if artifact.format != FORMAT:
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the openvino backend reads",
            cause=f"it reads {FORMAT}",
            remedy="open it with the backend that made it, or compile the segment again",
        )
    name = sdk.require(device)
    known = artifact.metadata
    settings = known.get("settings")
    hashes = known.get("sha256")
    if not isinstance(settings, Mapping) or not isinstance(hashes, Mapping):
        raise artifact_error("the artifact lacks its metadata", remedy=_AGAIN)
    _check_files(artifact, hashes)
    model = stored.read(
        bytes(artifact.files[stored.XML]),
        artifact.files[stored.BIN],
        artifact.weights,
        known.get("weights"),
    )
    compiled = compile_model(model, name, dict(settings))
    found = facts(compiled)
    return OpenVinoExecutable(compiled, found, holds=(artifact,))


def _check_files(artifact: Artifact, hashes: Mapping[str, object]) -> None:
    for name in (stored.XML, stored.BIN):
        if name not in artifact.files:
            raise artifact_error(f"the artifact has no file {name!r}", remedy=_AGAIN)
        if hashlib.sha256(artifact.files[name]).hexdigest() != hashes.get(name):
            raise artifact_error(
                f"{name} is damaged",
                cause="its SHA-256 is not the one that was recorded when it was compiled",
                remedy="copy the package again, or compile the segment again",
            )
