"""Plugins made by ``hardpoint new``, for tests: made, installed as pip would, imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import hardpoint as hp
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.scaffold.contents import contents
from hardpoint.scaffold.names import Names
from hardpoint.scaffold.write import write


def make(parent: Path, name: str, kinds: tuple[Kind, ...] = KINDS) -> Path:
    """The folder of a new plugin."""
    names = Names.parse(name)
    folder = parent / names.dist
    write(contents(names, kinds), folder)
    return folder


def install(folder: Path, site: Path) -> None:
    """Build a plugin's wheel and unpack it to ``site``, with its metadata."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation"]
    command += ["--no-deps", "--no-index", "--target", str(site), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Installed:
    """A plugin with all four kinds, on this process's path."""

    def __init__(self, parent: Path, name: str) -> None:
        self.name = name
        self.site = parent / "site"
        install(make(parent, name), self.site)

    def module(self, name: str) -> ModuleType:
        """A module of the plugin."""
        return importlib.import_module(f"hardpoint_{self.name}.{name}")

    def registry(self) -> hp.Registry:
        """A registry that knows its four providers, and no others."""
        return hp.Registry(path=[str(self.site)], policy=hp.Policy())

    def __enter__(self) -> Installed:
        sys.path.insert(0, str(self.site))
        importlib.invalidate_caches()
        return self

    def __exit__(self, *error: object) -> None:
        sys.path.remove(str(self.site))
        for name in [n for n in sys.modules if n.split(".")[0] == f"hardpoint_{self.name}"]:
            del sys.modules[name]
