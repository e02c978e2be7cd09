"""What passed the whole kit: providers of ours, and the plugins of ``hardpoint new``.

While neither the kit nor the code has changed since, a commit runs some of the checks on ours, and
does not bring a new plugin to its highest level. `make conformance` notes the code before it runs,
and keeps the note as ``passed.json`` after all passed; let nothing else do so.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import killed
from conformance_reports import ROOT, project_of
from hardpoint.files import write_atomically
from hardpoint.registry.registry import Registry

FILE = Path(__file__).with_name("passed.json")
SHARE = 4
# These run at each commit all the same: numbers, files and messages are right.
ALWAYS = frozenset(
    {
        "inputs_of_any_strides", "model_encoder", "nan_and_infinity", "several_results",
        "sizes_that_change", "works_in_a_new_process",
        "every_dtype_round_trips", "files_cut_short_are_refused", "slices_equal_the_whole",
        "every_assignment_is_valid", "its_plans_run_and_are_right",
        "a_killed_rank_is_an_error", "collectives_are_right", "fsdp2_trains",
    }
)  # fmt: skip
_CORE = ROOT / "core" / "src"
_TEMPLATES = tuple(sorted(_CORE.glob("hardpoint/scaffold/templates/**/*.tmpl")))
# What a new plugin is made of, and judged by.
NEW_PLUGINS: Mapping[str, tuple[Path, ...]] = {
    "scaffold": (_CORE, *_TEMPLATES),
    "tutorial": (_CORE, *_TEMPLATES, ROOT / "docs" / "tutorials" / "backend-in-thirty-minutes.md"),
}


def code_of(name: str) -> str:
    """SHA-256 of the kit and of the code of a provider (``KIND:NAME``) or of a new plugin.

    A provider's is that of its distribution and of ours that it needs, but for the core, and the
    versions of all else that it asks for and that is installed.
    """
    if name in NEW_PLUGINS:
        return killed.code_hash((killed.KIT, *NEW_PLUGINS[name]))
    ours, versions = [], set()
    for dist in sorted(set(_needed(Registry().record(*name.split(":")).dist))):
        if not dist.startswith("hardpoint-"):
            versions.add(f"{dist}=={metadata.version(dist)}\n")
        else:
            project = project_of(dist)
            ours += [project / "src", *sorted(project.glob("*.toml"))]
    held = killed.code_hash((killed.KIT, *ours)) + "".join(sorted(versions))
    return hashlib.sha256(held.encode()).hexdigest()


def _needed(dist: str) -> Iterator[str]:
    """``dist``; of ours, whatever they ask for too, extras included, as far as it is installed."""
    try:
        asked = metadata.requires(dist) or []
    except metadata.PackageNotFoundError:
        return
    yield dist
    if dist.startswith("hardpoint-"):
        for line in asked:
            other = Requirement(line).name
            if other != "hardpoint":
                yield from _needed(other)


def reason(name: str, file: Path = FILE) -> str:
    """Why ``name`` need not run the whole kit now, or ``""``."""
    said = killed.read(file).get(name, {})
    if said.get("code") != code_of(name):
        return ""
    return f"passed on {said['date']} as it is, this very kit (`make conformance` runs all)"


def due(name: str, checks: Sequence[str], file: Path = FILE) -> list[str]:
    """Those of ``checks`` that must run now on provider ``name``."""
    if not reason(name, file):
        return list(checks)
    return [c for c in checks if c in ALWAYS or zlib.crc32(f"{name} {c}".encode()) % SHARE == 0]


def write(names: Iterable[str], file: Path) -> None:
    """Note the code of ``names`` as it is now."""
    said = {name: killed.note(code_of(name)) for name in sorted(names)}
    write_atomically(file, json.dumps(said, indent=1) + "\n")


def shown_here() -> list[str]:
    """What can pass the whole kit on this machine: its hardware, or git, is here."""
    from first_party import FIRST_PARTY, NEED_HARDWARE

    registry = Registry()
    return [
        *(k for k in FIRST_PARTY
          if k not in NEED_HARDWARE or registry.probe(*k.split(":")).available),
        *(name for name in NEW_PLUGINS if name != "tutorial" or shutil.which("git")),
    ]  # fmt: skip


if __name__ == "__main__":
    write(shown_here(), Path(sys.argv[1]))
