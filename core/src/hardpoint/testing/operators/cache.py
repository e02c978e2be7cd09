"""Remembered results of operators, so that a run repeats only what may have changed.

One file for each identity: the provider's very files, what it depends on, PyTorch, the kit, the
devices, precision and options. What the file does not vouch for is not trusted.
"""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import hardpoint
from hardpoint.testing.operators.attempt import Result, from_json
from hardpoint.testing.operators.database import Case
from hardpoint.testing.subject import Subject

FORMAT = 1
# A crash or a hang may be the machine's doing: tried again each time.
_KEPT = frozenset({"right", "wrong", "refused", "raised", "unclaimed", "not_exportable"})
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Cache:
    """Where results are remembered.

    :param path: the file, or ``None``: nothing is remembered.
    :param identity: what it holds results of.
    :param note: why nothing is remembered, or what is wrong with the file; or ``""``.
    """

    path: Path | None
    identity: Mapping[str, object]
    note: str = ""

    def read(self) -> tuple[dict[Case, Result], str]:
        """The remembered results, and what is wrong with the file, or ``""``."""
        if self.path is None or not self.path.exists():
            return {}, self.note
        try:
            whole = json.loads(self.path.read_text("utf-8"))
            rows = whole["results"]
            if whole["format"] != FORMAT or whole["identity"] != self.identity:
                raise ValueError("it holds the results of something else")
            if whole["sha256"] != _hash(rows):
                raise ValueError("its hash is not that of its content")
            found = [from_json(row) for row in rows]
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            return {}, f"{self.path.name} is not used: {type(error).__name__}: {error}"
        return {result.case: result for result in found if result.sample}, ""

    def write(self, results: Iterable[Result]) -> None:
        """Remember ``results``, atomically: the old file or the whole new one is there."""
        if self.path is None:
            return
        rows = [r.to_json() for r in results if r.state in _KEPT and r.sample]
        whole = {
            "format": FORMAT,
            "identity": self.identity,
            "sha256": _hash(rows),
            "results": rows,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(whole, file)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def cache_of(subject: Subject) -> Cache:
    """The cache for one provider in the folder that the user named, if any."""
    if not subject.effort.cache:
        return Cache(None, {})
    record = subject.record
    if not record.dist:
        return Cache(None, {}, "the provider was added in this process: nothing tells its version")
    dist = metadata.distribution(record.dist)
    files = dist.read_text("RECORD")
    if files is None or _is_editable(dist):
        return Cache(None, {}, f"{record.dist} is installed in place: its code may change any time")
    identity = {
        "provider": subject.key,
        "distribution": f"{record.dist} {record.version}",
        "record": hashlib.sha256(files.encode()).hexdigest(),
        "requires": _installed(dist),
        "torch": metadata.version("torch"),
        "kit": _kit(),
        "machine": f"{platform.system()} {platform.machine()}",
        "devices": [[d.id, d.name] for d in subject.probe.devices],
        "precision": subject.precision,
        "config": dict(subject.settings.config),
        "options": dict(subject.settings.options),
    }
    # As a file gives it back: keys as text, tuples as lists.
    identity = json.loads(json.dumps(identity, sort_keys=True, default=str))
    name = f"operators-{subject.name}-{_hash(identity)[:16]}.json"
    return Cache(Path(subject.effort.cache) / name, identity)


def _is_editable(dist: metadata.Distribution) -> bool:
    text = dist.read_text("direct_url.json")
    if text is None:
        return False
    info = json.loads(text).get("dir_info")
    return isinstance(info, dict) and bool(info.get("editable"))


def _installed(dist: metadata.Distribution) -> dict[str, str]:
    """Version of each distribution that it asks for: the SDK is among them."""
    found = {}
    for requirement in dist.requires or ():
        match = _NAME.match(requirement)
        if match is None:
            continue
        try:
            found[match[0].lower()] = metadata.version(match[0])
        except metadata.PackageNotFoundError:
            found[match[0].lower()] = "not installed"
    return found


def _kit() -> str:
    """A hash of the core's own code, which makes the programs and judges the results."""
    sha = hashlib.sha256()
    root = Path(hardpoint.__file__).parent
    for path in sorted(root.rglob("*.py")):
        sha.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _hash(data: object) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
