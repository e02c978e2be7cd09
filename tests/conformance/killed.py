"""For which kit all mutants were last killed: ``killed.json``, which ``make conformance`` writes.

Whether a check fails a broken provider depends on the kit and on the provider. While neither has
changed since all were killed, a commit runs one mutant in :data:`SHARE`; once anything has, the
first of each check.

`make conformance` notes the code before it runs, and keeps the note after all were killed; let
nothing else do so.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hardpoint.files import write_atomically

HERE = Path(__file__).parent
FILE = HERE / "killed.json"
KIT = HERE.parents[1] / "core" / "src" / "hardpoint" / "testing"
# The kit, what breaks it, and what runs the one on the other.
CODE = (KIT, HERE / "mutants", HERE / "harness.py", *sorted(HERE.glob("test_mutants_*.py")))
SHARE = 6


def code_hash(code: Iterable[Path] = CODE) -> str:
    """SHA-256 of every file's name and content; of a folder, those of its Python files."""
    sha = hashlib.sha256()
    for given in code:
        for path in [given] if given.is_file() else sorted(given.rglob("*.py")):
            content = path.read_bytes()
            sha.update(f"{path.relative_to(given.parent).as_posix()} {len(content)}\n".encode())
            sha.update(content)
    return sha.hexdigest()


def read(file: Path = FILE) -> Mapping[str, Any]:
    """What the file says; empty where there is none."""
    if not file.exists():
        return {}
    found: Mapping[str, Any] = json.loads(file.read_text("utf-8"))
    return found


def note(code: str) -> dict[str, str]:
    """``code``, and when."""
    return {"code": code, "date": datetime.now(timezone.utc).date().isoformat()}


def reason(name: str, said: Mapping[str, str], code: str) -> str:
    """Why the mutant called ``name`` need not run now, or ``""``."""
    if said.get("code") != code or zlib.crc32(name.encode()) % SHARE == 0:
        return ""
    return f"killed on {said['date']} by this very kit (`make conformance` runs all)"


def write(file: Path) -> None:
    """Note the code as it is now."""
    write_atomically(file, json.dumps(note(code_hash()), indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
