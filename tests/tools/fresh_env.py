"""Environments outside the checkout, with our wheels and what those require, and nothing else.

Installing torch there again would take minutes and a gigabyte for files that are already on this
machine, so the third-party packages are lent to it: one folder of links, on its path through a
``.pth`` line. Linked are the packages that are asked for, and what those ask for, and no others: a
wheel that imports something it does not require fails there. Our own distributions come from their
wheels alone.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

from setup_env import distributions

ROOT = Path(__file__).resolve().parents[2]


def completed(
    *command: str | Path, cwd: Path, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command with little of this process's environment."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "CC", "CXX")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    return subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def run(*command: str | Path, cwd: Path, timeout: float = 300) -> str:
    """The standard output of a command that must succeed."""
    answer = completed(*command, cwd=cwd, timeout=timeout)
    assert answer.returncode == 0, f"{command}\n{answer.stdout}\n{answer.stderr}"
    return answer.stdout


def build(out: Path) -> None:
    """Put the sdist and the wheel of every distribution in ``out``; each wheel from its sdist."""
    for folder in distributions(ROOT):
        run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, folder, cwd=out)


def wheels(built: Path) -> dict[str, Path]:
    """Normalized distribution name -> wheel."""
    return {normalized(path.name.split("-")[0]): path for path in sorted(built.glob("*.whl"))}


def normalized(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(wheel: Path) -> list[str]:
    """What a wheel's metadata asks for."""
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])


def asked(texts: Iterable[str], extras: Iterable[str] = ()) -> list[str]:
    """The requirements that hold here, without an extra or with one of these."""
    found = [Requirement(text) for text in texts]
    wanted = ["", *extras]
    return [
        str(one)
        for one in found
        if not one.marker or any(one.marker.evaluate({"extra": extra}) for extra in wanted)
    ]


def needed(wanted: Iterable[str], ours: Mapping[str, Path]) -> set[str]:
    """The third-party distributions that these requirements ask for, through and through."""
    found: set[str] = set()
    queue = [Requirement(text) for text in wanted]
    while queue:
        requirement = queue.pop()
        name = normalized(requirement.name)
        extras = requirement.extras or {""}
        if name in ours or name in found:
            continue
        found.add(name)
        for text in importlib.metadata.requires(name) or []:
            inner = Requirement(text)
            if not inner.marker or any(inner.marker.evaluate({"extra": e}) for e in extras):
                queue.append(inner)
    return found


def link(names: Iterable[str], folder: Path) -> None:
    """Link the top-level files and folders of installed distributions into ``folder``."""
    folder.mkdir()
    for name in names:
        distribution = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}
        for top in tops - {"__pycache__"}:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and source.suffix != ".pth" and not (folder / top).exists():
                (folder / top).symlink_to(source)


@dataclass(frozen=True)
class Fresh:
    """An environment in ``folder``, and our wheels to install from in ``built``."""

    folder: Path
    built: Path

    @classmethod
    def make(cls, folder: Path, built: Path, lent: Iterable[str], *install: str | Path) -> Fresh:
        """A new environment with these requirements installed.

        :param lent: requirements whose distributions, and what they need, are lent to it.
        """
        link(needed(lent, wheels(built)), folder / "lent")
        venv.create(folder / "env", with_pip=False, symlinks=True)
        [packages] = (folder / "env").glob("lib/python*/site-packages")
        (packages / "lent.pth").write_text(f"{folder / 'lent'}\n", "utf-8")
        made = cls(folder, built)
        made.install(*install)
        return made

    def install(self, *requirements: str | Path) -> None:
        """A real resolution, with no index: whatever is missing from what was lent is an error."""
        pip = (sys.executable, "-m", "pip", "--python", self.tool("python"), "install", "--quiet")
        run(*pip, "--no-index", "--find-links", self.built, *requirements, cwd=self.folder)

    def tool(self, name: str) -> Path:
        """A program of the environment."""
        return self.folder / "env" / "bin" / name
