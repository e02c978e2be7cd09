"""``hardpoint new`` on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.dists import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path / "site")


def new(site: FakeSite, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    ran = site.cli("new", *arguments)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran


def test_it_shows_the_files_and_what_to_type_next(site: FakeSite) -> None:
    said = new(site, "acme", "--kinds", "transport,backend").stdout
    assert said.startswith("hardpoint-acme: backend:acme, transport:acme\n")
    assert "src/hardpoint_acme/plugin.py" in said
    assert said.endswith(
        "Next:\n"
        "  cd hardpoint-acme\n"
        '  pip install -e ".[test,lint]"\n'
        "  hardpoint check backend:acme transport:acme\n"
    )
    assert (site.root / "hardpoint-acme" / "src" / "hardpoint_acme" / "transport.py").is_file()


def test_without_kinds_it_is_a_backend(site: FakeSite) -> None:
    new(site, "acme")
    package = site.root / "hardpoint-acme" / "src" / "hardpoint_acme"
    assert (package / "backend.py").is_file()
    assert not (package / "transport.py").exists()


def test_json_says_the_same_to_machines(site: FakeSite, tmp_path: Path) -> None:
    target = tmp_path / "my work"
    target.mkdir()
    said = json.loads(new(site, "acme-npu", "--output", str(target), "--json").stdout)
    folder = target / "hardpoint-acme-npu"
    assert said["folder"] == str(folder)
    assert (said["distribution"], said["package"]) == ("hardpoint-acme-npu", "hardpoint_acme_npu")
    assert said["providers"] == ["backend:acme-npu"]
    assert {file["path"] for file in said["files"]} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
    assert said["next"][0] == f"cd '{folder}'"
    assert said["next"][2] == "hardpoint check backend:acme-npu"


def test_mistakes_are_answered_in_words_and_write_nothing(site: FakeSite) -> None:
    assert "did you mean 'backend'?" in new(site, "acme", "--kinds", "backed", code=1).stderr
    assert "first-party provider" in new(site, "gloo", code=1).stderr
    assert "names no author" in new(site, "acme", "--author", "a <b>", code=1).stderr
    assert list(site.root.iterdir()) == []
    new(site, "acme")
    before = sorted(site.root.rglob("*"))
    error = json.loads(new(site, "acme", "--json", code=1).stdout)
    assert error["cause"] == "it holds files, and none is ever overwritten"
    assert sorted(site.root.rglob("*")) == before


def test_it_imports_no_torch(site: FakeSite) -> None:
    code = (
        "import sys; from hardpoint.cli import main;"
        "main(['new', 'acme'], standalone_mode=False); sys.exit('torch' in sys.modules)"
    )
    ran = site.run("-c", code)
    assert ran.returncode == 0, ran.stderr
    assert sys.executable
