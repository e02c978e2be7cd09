"""What a distribution's behaviour depends on: its own files, and versions of what it requires."""

from __future__ import annotations

import hashlib
import importlib.metadata as metadata
import json
import re
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9_.-]+")


def requirements(dist: str) -> dict[str, str]:
    """Installed version of each distribution that ``dist`` asks for, extras included: its SDK."""
    found = {}
    for requirement in metadata.distribution(dist).requires or ():
        match = _NAME.match(requirement)
        if match is None:
            continue
        try:
            found[match[0].lower()] = metadata.version(match[0])
        except metadata.PackageNotFoundError:
            continue
    return found


def stamp(dist: str, file: str = "") -> str:
    """A hash that changes when ``dist`` or what it requires is another than before.

    :param file: of its plugin module: where it is installed in place, its code may change under
        the same version, so the sizes and times of the files beside it count.
    """
    found = metadata.distribution(dist)
    parts: list[object] = [found.version, found.read_text("RECORD"), requirements(dist)]
    if file and _in_place(found):
        parts.append(tree(Path(file).parent))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def tree(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of each Python file in a folder and below."""
    files = [(path, path.stat()) for path in sorted(folder.rglob("*.py"))]
    return [(str(path.relative_to(folder)), s.st_size, s.st_mtime_ns) for path, s in files]


def _in_place(found: metadata.Distribution) -> bool:
    text = found.read_text("direct_url.json")
    if text is None:
        return False
    info = json.loads(text).get("dir_info")
    return isinstance(info, dict) and bool(info.get("editable"))
