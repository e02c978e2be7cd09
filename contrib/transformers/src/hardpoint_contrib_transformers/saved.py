"""From a saved pipeline to one that runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import transformers

import hardpoint as hp
from hardpoint_contrib_transformers.compiled import CompiledPipeline, hf_pipeline, own_registry
from hardpoint_contrib_transformers.folder import PACKAGE, PARTS, manifest_of
from hardpoint_contrib_transformers.stand_in import Facts, stand_in


def load(
    path: str | Path,
    *,
    fallback: str | Sequence[str] | None = None,
    verify: Literal["full", "quick"] = "full",
    policy: hp.Policy | None = None,
    registry: hp.Registry | None = None,
    **hf: Any,
) -> CompiledPipeline:
    """Start a saved pipeline: nothing is captured or compiled, no code of the model is imported.

    :param fallback: ``verify`` too: as in :func:`hardpoint.load`.
    :param policy: ``registry`` and ``hf`` too: as in :func:`pipeline`. Parameters of the task
        (``top_k=...``) are not saved: give them again.
    :raises PackageError: no saved pipeline, or a damaged one.
    :raises HardpointError: of loading the package.
    """
    folder = Path(path)
    manifest = manifest_of(folder)
    mount = own_registry(policy, registry)
    compiled = hp.load(folder / PACKAGE, fallback=fallback, verify=verify, registry=mount)
    parts: dict[str, Any] = {
        name: PARTS[name].from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for name in manifest["parts"]
    }
    config = transformers.AutoConfig.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    facts = Facts(**{field.name: manifest[field.name] for field in fields(Facts)})
    model = stand_in(compiled, config, facts)
    inner = hf_pipeline(manifest["task"], model, **{**parts, **hf})
    return CompiledPipeline(manifest["task"], inner, compiled, mount)
