"""Golden files: what was written once, by whomever, must stay readable, to the last bit."""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

import torch

from hardpoint.errors import WeightsError
from hardpoint.registry.registry import Registry
from hardpoint.testing.check import check, expect, fail, skip_unless
from hardpoint.testing.serializer.bench import attempt, bench
from hardpoint.testing.serializer.samples import raw_bytes, shown, word
from hardpoint.testing.subject import Subject
from hardpoint.weights.choose import open_weights

_HOW = (
    'no golden files: put files of the format into a folder, say golden = "tests/golden" in '
    "conformance.toml, and call hardpoint.testing.serializer.record_golden(path) on each"
)


class Recorded(TypedDict):
    """One tensor: ``sha256`` of its bytes, row by row, little-endian."""

    dtype: str
    shape: list[int]
    sha256: str


def record_golden(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor] | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    registry: Registry | None = None,
) -> Path:
    """Write ``NAME.json`` beside the file ``NAME``: what it holds, for the kit to hold it to.

    :param tensors: what the file holds, from whoever wrote it. Left out, it is what the installed
        serializer reads *now*: look at the record before you commit it.
    :returns: the record's path.
    :raises WeightsError: no serializer reads the file.
    """
    path = Path(path)
    if tensors is None:
        with open_weights(path, registry=registry or Registry()) as reader:
            tensors = {name: reader.tensor(name) for name in reader}
            metadata = dict(reader.metadata)
    lines = [
        f"{json.dumps(name)}: {json.dumps(_recorded(tensor))}"
        for name, tensor in sorted(tensors.items())
    ]
    facts = json.dumps(dict(sorted((metadata or {}).items())))
    text = f'{{"metadata": {facts},\n"tensors": {{\n' + ",\n".join(lines) + "\n}}\n"
    place = Path(f"{path}.json")
    place.write_text(text, encoding="utf-8")
    return place


class Golden:
    """Files that the settings name."""

    @check("round-trips")
    def test_golden_files_stay_readable(self, subject: Subject, figures: dict[str, Any]) -> None:
        """Files written once, by this or another program, read as they were recorded."""
        folder = subject.settings.folder("golden")
        skip_unless(folder, _HOW)
        skip_unless(sys.byteorder == "little", "the records are of little-endian bytes")
        assert folder is not None, "skip_unless ended the check"
        pairs = [
            (path.with_suffix(""), path)
            for path in sorted(folder.glob("*.json"))
            if path.with_suffix("").exists()
        ]
        expect(pairs, f"no file in {folder} has its record NAME.json beside it")
        with bench(subject) as at:
            for path, record in pairs:
                what = f"golden file {path.name}"
                opened = attempt(f"open() of {what}", at.serializer.open, path)
                if isinstance(opened, WeightsError):
                    fail(f"{what} is refused: {opened}")
                with opened as reader:
                    _hold(what, _read_record(record), reader)
        figures["files"] = [path.name for path, _ in pairs]


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        tensors = cast(dict[str, Recorded], record["tensors"])
        for entry in tensors.values():
            _ = entry["dtype"], entry["shape"], entry["sha256"]
        _ = dict(record["metadata"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fail(f"the record {path} is unusable ({type(error).__name__}: {error}); record it again")
    return cast(dict[str, Any], record)


def _hold(what: str, record: Mapping[str, Any], reader: Any) -> None:
    tensors: Mapping[str, Recorded] = record["tensors"]
    names = set(reader)
    expect(
        names == set(tensors),
        f"{what} holds {sorted(tensors)[:5]!r}, and reads as {sorted(names)[:5]!r}; they differ in "
        f"{sorted(names ^ set(tensors))[:5]!r}",
    )
    for name, entry in tensors.items():
        tensor = attempt(f"tensor({name!r}) of {what}", reader.tensor, name)
        if isinstance(tensor, WeightsError):
            fail(f"tensor({name!r}) of {what} is refused: {tensor}")
        found = _recorded(tensor)
        for key in ("dtype", "shape", "sha256"):
            expect(
                found[key] == entry[key],
                f"{what}: {key} of {name!r} is {entry[key]}, and reads as {found[key]}",
            )
    expect(
        dict(reader.metadata) == record["metadata"],
        f"{what}: its metadata is {record['metadata']}, and reads as {dict(reader.metadata)}",
    )


def _recorded(tensor: torch.Tensor) -> Recorded:
    plain = shown(tensor).cpu()
    raw = raw_bytes(plain)
    # Read through its address: a vendor need not have numpy, the buffer protocol's only other way.
    data = ctypes.string_at(raw.data_ptr(), raw.numel()) if raw.numel() else b""
    digest = hashlib.sha256(data).hexdigest()
    return Recorded(dtype=word(plain.dtype), shape=list(plain.shape), sha256=digest)
