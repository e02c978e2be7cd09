"""A saved pipeline's folder: the package, and transformers' own files for what is around it.

``pipeline.json`` is written last, so that a folder without it is no saved pipeline, never half of
one. ``model.pt2`` carries its own hashes; the other files are transformers' and have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers

import hardpoint as hp
from hardpoint_contrib_transformers.tasks import find_task

FORMAT = 1
MANIFEST, PACKAGE = "pipeline.json", "model.pt2"
# What stands around a model in a pipeline -> what reads it again.
PARTS: Mapping[str, Any] = {
    "tokenizer": transformers.AutoTokenizer,
    "image_processor": transformers.AutoImageProcessor,
    "feature_extractor": transformers.AutoFeatureExtractor,
}
# Named here, not looked up in torch: a file must not choose what is looked up.
DTYPES = ("float32", "float16", "bfloat16", "float64")
_FIELDS: Mapping[str, type] = {
    "task": str, "architecture": str, "dtype": str, "prefix": str,
    "modalities": list, "fixed": dict, "parts": list,
}  # fmt: skip


def save(task: str, inner: Any, compiled: hp.CompiledModel, path: Path) -> Path:
    """See :meth:`.CompiledPipeline.save`."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise hp.PackageError(
            f"{path} is there already, and not an empty folder",
            remedy="give a new folder, or remove that one first",
        )
    model = inner.model
    parts = [name for name in PARTS if getattr(inner, name) is not None]
    manifest = {"format": FORMAT, "task": task, **asdict(model.facts), "parts": parts}
    try:
        path.mkdir(parents=True, exist_ok=True)
        compiled.save(path / PACKAGE)
        model.config.save_pretrained(path)
        for name in parts:
            getattr(inner, name).save_pretrained(path)
        (path / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
    except OSError as error:
        raise hp.PackageError(
            f"{path} was not written", cause=str(error), remedy="save it where there is room"
        ) from error
    return path


def manifest_of(folder: Path) -> dict[str, Any]:
    """What ``pipeline.json`` says, checked.

    :raises PackageError: it is missing, or not what :func:`save` writes.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text("utf-8"))
        _check(found)
    except FileNotFoundError as error:
        raise hp.PackageError(
            f"{folder} is no saved pipeline",
            cause=f"it has no {MANIFEST}",
            remedy="give a folder that CompiledPipeline.save() wrote to its end",
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise hp.PackageError(
            f"{path} is damaged",
            cause=str(error) or type(error).__name__,
            remedy="save the pipeline again, or get the folder again from its source",
        ) from error
    checked: dict[str, Any] = found
    return checked


def _check(found: object) -> None:
    """:raises ValueError: with what is wrong."""
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, not an object")  # noqa: TRY004
    if found.get("format") != FORMAT:
        raise ValueError(f"its format is {found.get('format')!r}, this release reads {FORMAT}")
    for name, kind in _FIELDS.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(f"{name!r} is {found.get(name)!r}, not a {kind.__name__}")  # noqa: TRY004
    find_task(found["task"])
    if not found["architecture"].isidentifier():
        raise ValueError(f"'architecture' is {found['architecture']!r}, not a class name")
    if found["dtype"] not in DTYPES:
        raise ValueError(f"'dtype' is {found['dtype']!r}; known: {', '.join(DTYPES)}")
    unknown = [part for part in found["parts"] if part not in tuple(PARTS)]
    if unknown:
        raise ValueError(f"'parts' names {unknown[0]!r}; known: {', '.join(PARTS)}")
