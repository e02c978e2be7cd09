"""Run the whole kit on every provider of this repository: ``conformance_reports.py FOLDER [KEY...]``.

Exits with 1 where a provider does not reach the highest level of its kind (or the lowest, where its
hardware is not here); its report is written all the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from hardpoint.registry.registry import Registry
from hardpoint.testing.check import LEVELS

ROOT = Path(__file__).resolve().parents[2]


def project_of(dist: str) -> Path:
    """The folder of one of our distributions.

    :raises LookupError: none here has that name.
    """
    for project in sorted(ROOT.glob("*/*/pyproject.toml")):
        if f'name = "{dist}"' in project.read_text("utf-8"):
            return project.parent
    raise LookupError(f"no distribution {dist!r} under {ROOT}")


def settings_of(dist: str) -> list[str]:
    """``--settings`` of the distribution's own ``conformance.toml``, where it has one."""
    try:
        beside = project_of(dist) / "conformance.toml"
    except LookupError:  # a plugin of `hardpoint new`, installed from elsewhere
        return []
    return ["--settings", str(beside)] if beside.is_file() else []


def main() -> int:
    """Write the reports."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("keys", nargs="*", help="KIND:NAME; default: all of ours")
    parser.add_argument("--quick", action="store_true", help="a minute of operators, not all")
    options = parser.parse_args()
    worst = 0
    registry = Registry()
    for record in registry.records():
        if not record.dist.startswith("hardpoint-") or (
            options.keys and record.key not in options.keys
        ):
            continue
        effort = [] if options.quick else ["--full"]
        levels = LEVELS[record.kind]
        # Where the hardware is missing, all that can be shown is that it says so.
        here = registry.probe(record.kind, record.name).available
        where = ["--report", str(options.folder), "--require", levels[-1 if here else 0]]
        command = [sys.executable, "-m", "hardpoint.cli", "check", record.key, *effort, *where]
        done = subprocess.run([*command, *settings_of(record.dist)], check=False)
        worst = max(worst, done.returncode)
    return min(worst, 1)


if __name__ == "__main__":
    sys.exit(main())
