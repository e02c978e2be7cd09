"""As what each provider of ours, and each plugin of ``hardpoint new``, last passed the whole kit.

While neither the kit nor the code has changed since, a commit runs one check in :data:`SHARE` on
ours, and does not bring a new plugin to its highest level. `make conformance` writes the file
``passed.json``, after all passed; let nothing else do so.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from conformance_reports import ROOT, project_of
from hardpoint.files import write_atomically
from hardpoint.registry.registry import Registry
from killed import KIT, code_hash

FILE = Path(__file__).with_name("passed.json")
SHARE = 4
_SCAFFOLD = ROOT / "core" / "src" / "hardpoint" / "scaffold"
_TUTORIAL = ROOT / "docs" / "tutorials" / "backend-in-thirty-minutes.md"
# What a new plugin is made of, and the test that brings it to its highest level.
NEW_PLUGINS: Mapping[str, tuple[Path, ...]] = {
    "scaffold": (_SCAFFOLD, *sorted(_SCAFFOLD.glob("templates/**/*.tmpl"))),
    "tutorial": (_SCAFFOLD, *sorted(_SCAFFOLD.glob("templates/**/*.tmpl")), _TUTORIAL),
}


def code_of(name: str) -> str:
    """SHA-256 of the kit and of the code of a provider (``KIND:NAME``) or of a new plugin."""
    if name in NEW_PLUGINS:
        return code_hash((KIT, *NEW_PLUGINS[name]))
    project = project_of(Registry().record(*name.split(":")).dist)
    return code_hash((KIT, project / "src", *sorted(project.glob("*.toml"))))


def read(file: Path = FILE) -> Mapping[str, Mapping[str, str]]:
    """Of each name: the code that passed, and when; empty where there is no file."""
    if not file.exists():
        return {}
    found: Mapping[str, Mapping[str, str]] = json.loads(file.read_text("utf-8"))
    return found


def reason(name: str, file: Path = FILE) -> str:
    """Why ``name`` need not run the whole kit now, or ``""``."""
    said = read(file).get(name, {})
    if said.get("code") != code_of(name):
        return ""
    return f"passed on {said['date']} as it is, this very kit (`make conformance` runs all)"


def due(name: str, checks: Sequence[str], file: Path = FILE) -> list[str]:
    """Those of ``checks`` that must run now on provider ``name``."""
    if not reason(name, file):
        return list(checks)
    return [check for check in checks if zlib.crc32(f"{name} {check}".encode()) % SHARE == 0]


def write(names: Iterable[str], file: Path = FILE) -> None:
    """All of ``names`` passed as they are now: note it."""
    date = datetime.now(timezone.utc).date().isoformat()
    said = {name: {"code": code_of(name), "date": date} for name in sorted(names)}
    write_atomically(file, json.dumps(said, indent=1) + "\n")


if __name__ == "__main__":
    from first_party import FIRST_PARTY

    write([*FIRST_PARTY, *NEW_PLUGINS])
    print(f"{FILE}: all passed this kit as they are", file=sys.stderr)
