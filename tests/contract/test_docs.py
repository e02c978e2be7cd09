"""The documentation is tested: every example runs, generated pages are up to date, links lead somewhere."""

import functools
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forked import run_program

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("plugins/*/README.md")),
    *sorted(ROOT.glob("contrib/*/README.md")),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# README's example names files that only its reader has; the tutorial runs the same calls.
# The reference shows signatures, not programs.
# The vendor's tutorial changes a plugin step by step: tests/end_to_end/test_tutorial_backend.py.
TEMPLATES = {
    ROOT / "README.md",
    ROOT / "docs/tutorials/backend-in-thirty-minutes.md",
    *ROOT.glob("docs/reference/*.md"),
}
WITH_EXAMPLES = [p for p in PAGES if BLOCK.search(p.read_text()) and p not in TEMPLATES]


def script(page: Path) -> str:
    """All examples of a page as one program; commands run where they stand, by ``_hardpoint``."""
    parts = []
    for language, body in BLOCK.findall(page.read_text()):
        if language == "python":
            parts.append(body)
            continue
        for line in body.splitlines():
            if line.startswith("$ hardpoint "):
                words = shlex.split(line.removeprefix("$ hardpoint "), comments=True)
                parts.append(f"_hardpoint(*{words!r})")
    return "\n".join(parts)


@functools.cache
def usual_path() -> list[str]:
    """Where a program finds modules: pytest's own process has folders of the tests beside."""
    code = "import json, sys; print(json.dumps(sys.path[1:]))"
    told: list[str] = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    return told


def alone() -> dict[str, str]:
    """What torchrun would set for one rank, so that examples with process groups run too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_example_runs(page, tmp_path):
    program = tmp_path / "examples.py"
    program.write_text(script(page))
    environment = {**os.environ, "NO_COLOR": "1", **alone()}
    done = run_program(
        program, cwd=tmp_path, path=usual_path(), env=environment, timeout=500,
        fresh="sys.modules" in program.read_text(),  # what it says of imports is tested, too
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_generated_reference_is_up_to_date():
    command = [sys.executable, str(ROOT / "tests/tools/reference.py"), "--check"]
    folder = str(ROOT / "docs/reference")
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_public_name_and_hook_stands_in_the_reference():
    import hardpoint as hp
    from hardpoint import hookspecs

    text = "".join(p.read_text() for p in (ROOT / "docs/reference").glob("*.md"))
    hooks = [n for s in hookspecs.SPECS for n in vars(s) if n.startswith("hardpoint_")]
    missing = [n for n in (*hp.__all__, *hooks) if f"`{n}" not in text and n != "__version__"]
    assert not missing
