"""Check the changelog fragments: names that towncrier understands, and a sentence in each."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from dependency_groups import read_toml

ROOT = Path(__file__).resolve().parents[2]


def problems(root: Path) -> list[str]:
    """One line for each fragment that towncrier would ignore or misplace."""
    config = read_toml(root / "pyproject.toml")["tool"]["towncrier"]
    kinds = [kind["directory"] for kind in config["type"]]
    name = re.compile(rf"(?:[1-9]\d*|\+[a-z0-9-]+)\.(?:{'|'.join(kinds)})(?:\.[1-9]\d*)?\.md")
    found = []
    for fragment in sorted((root / config["directory"]).iterdir()):
        if fragment.name == "README.md":
            continue
        if not name.fullmatch(fragment.name):
            found.append(
                f"{fragment.name}: call it ISSUE.KIND.md, or +a-few-words.KIND.md where there is "
                f"no issue; KIND is one of {', '.join(kinds)}"
            )
        elif not fragment.read_text("utf-8").strip().endswith("."):
            found.append(f"{fragment.name}: write at least one whole sentence, with its full stop")
    return found


if __name__ == "__main__":
    lines = problems(ROOT)
    print("\n".join(lines) or "changelog fragments: fine")
    sys.exit(bool(lines))
