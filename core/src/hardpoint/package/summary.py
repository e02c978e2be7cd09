"""What a PT2 archive holds, as JSON-serializable facts. Imports no torch.

Used by ``hardpoint inspect``, which must also show files of other versions and of other tools: what
is absent or of another shape is left out here, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hardpoint.package.archive import Archive
from hardpoint.package.integrity import is_hardpoint_package, read_manifest
from hardpoint.package.pickles import MODELS, WEIGHTS, pickled, programs, sample_inputs
from hardpoint.program import dims

_TEXT_LIMIT = 300
_TENSOR_NAMES = ("data/weights/weight_", "data/constants/tensor_", "data/hardpoint/tensors/")


def describe(archive: Archive, *, entries: bool = False) -> dict[str, Any]:
    """The facts of an open archive.

    :param entries: add every entry's name, offset and size.
    :raises PackageError: its manifest was changed, or its JSON is malformed.
    """
    tensors = [e.size for n, e in archive.entries.items() if n.startswith(_TENSOR_NAMES)]
    facts: dict[str, Any] = {
        "file": str(archive.path),
        "bytes": archive.path.stat().st_size,
        "kind": "hardpoint package" if is_hardpoint_package(archive) else "PT2 archive",
        "entries": len(archive.entries),
        "tensors": {"entries": len(tensors), "bytes": sum(tensors)},
        "programs": [_program(archive, name) for name in programs(archive)],
        "pickles": [plain(name) for name in pickled(archive)],
        "pickled_examples": list(sample_inputs(archive)),
    }
    if is_hardpoint_package(archive):
        facts.update(_manifest(archive, read_manifest(archive)))
    if entries:
        facts["entry_list"] = [
            {"name": e.name, "offset": e.offset, "bytes": e.size} for e in archive.entries.values()
        ]
    return facts


def plain(value: object) -> str:
    """``value`` as one line that a terminal prints and does not obey."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(value))
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}..."


def _program(archive: Archive, name: str) -> dict[str, Any]:
    stored = _map(archive.read_json(f"{MODELS}{name}.json"))
    graph_module = _map(stored.get("graph_module"))
    config = f"{WEIGHTS}{name}_weights_config.json"
    described = _map(archive.read_json(config)) if config in archive.entries else {}
    version = _map(stored.get("schema_version"))
    return {
        "name": plain(name),
        "torch": plain(stored.get("torch_version", "")),
        "schema": f"{plain(version.get('major', '?'))}.{plain(version.get('minor', '?'))}",
        "operations": len(_list(_map(graph_module.get("graph")).get("nodes"))),
        "weights": len(_map(described.get("config"))),
    }


def _manifest(archive: Archive, manifest: Mapping[str, Any]) -> dict[str, Any]:
    signature = _map(manifest.get("signature"))
    results = signature.get("results", signature.get("outputs"))
    return {
        "format": plain(manifest.get("format", "")),
        "name": plain(manifest.get("name", "")),
        "created": {plain(k): plain(v) for k, v in _map(manifest.get("created")).items()},
        "inputs": [_tensor(item) for item in _list(signature.get("inputs"))],
        "outputs": [_tensor(item) for item in _list(results)],
        "segments": list(_segments(archive, manifest)),
        "verification": _map(manifest.get("verification")),
    }


def _segments(archive: Archive, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each artifact, with what the plan says of its segment."""
    planned = {
        item.get("id"): item
        for item in map(_map, _list(_map(manifest.get("plan")).get("segments")))
        if isinstance(item.get("id"), str)
    }
    for artifact in map(_map, _list(manifest.get("artifacts"))):
        segment = artifact.get("segment")
        plan = planned.get(segment, {}) if isinstance(segment, str) else {}
        held = [_map(ref).get("entry") for ref in _map(artifact.get("weights")).values()]
        yield {
            "segment": plain(segment),
            "target": plain(artifact.get("target", "")),
            "provider": plain(artifact.get("provider", "")),
            "origin": plain(artifact.get("origin", "")),
            "format": plain(artifact.get("format", "")),
            "operations": len(_list(plan.get("nodes"))),
            "file_bytes": _bytes(archive, _map(artifact.get("files")).values()),
            "weight_bytes": _bytes(archive, held),
        }


def _bytes(archive: Archive, names: Any) -> int:
    """Bytes of these entries, each counted once."""
    known = {name for name in names if isinstance(name, str) and name in archive.entries}
    return sum(archive.entries[name].size for name in known)


def _tensor(item: object) -> dict[str, Any]:
    spec = _map(item)
    return {
        "name": plain(spec.get("name", "")),
        "dtype": plain(spec.get("dtype", "")),
        "shape": [_size(size) for size in _list(spec.get("shape"))],
    }


def _size(value: object) -> int | str:
    try:
        size = dims.from_json(value)
    except dims.DimError:
        return plain(value)
    return size if isinstance(size, int) else dims.render(size)


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()
