"""Checks are left out only while the kit, and the code, are what they were when it passed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import killed
import passed
from conformance_reports import project_of
from first_party import FIRST_PARTY
from hardpoint.interfaces.kinds import KINDS
from hardpoint.testing.suites import checks_of_kind

CHECKS = [f"check_{i}" for i in range(400)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    passed.write(["backend:cpu", "backend:simnpu", "tutorial"], tmp_path / "passed.json")
    return tmp_path / "passed.json"


def change(file: Path, name: str) -> None:
    said = json.loads(file.read_text())
    said[name]["code"] = "0" * 64
    file.write_text(json.dumps(said))


def test_of_a_provider_that_passed_as_it_is_a_quarter_runs_again(file):
    due = passed.due("backend:cpu", CHECKS, file)
    assert 60 < len(due) < 140
    assert [name for name in CHECKS if name in due] == due
    assert due != passed.due("backend:simnpu", CHECKS, file)


def test_what_tells_of_right_results_always_runs(file):
    known = {check.name for kind in KINDS for check in checks_of_kind(kind)}
    assert known >= passed.ALWAYS
    for kind in KINDS:
        of_kind = {check.name for check in checks_of_kind(kind)}
        assert len(of_kind & passed.ALWAYS) >= 2
    always = sorted(passed.ALWAYS)
    assert passed.due("backend:cpu", always, file) == always


def test_of_another_one_or_where_nothing_is_known_all_run(file, tmp_path):
    change(file, "backend:cpu")
    for key, where in (
        ("backend:cpu", file), ("backend:openvino", file), ("backend:cpu", tmp_path / "none.json"),
    ):  # fmt: skip
        assert passed.due(key, CHECKS, where) == CHECKS
        assert passed.reason(key, where) == ""
    assert len(passed.due("backend:simnpu", CHECKS, file)) < 200


def test_what_rests_says_since_when(file):
    date = json.loads(file.read_text())["tutorial"]["date"]
    assert passed.reason("tutorial", file) == (
        f"passed on {date} as it is, this very kit (`make conformance` runs all)"
    )


def test_each_is_other_code(tmp_path):
    names = [*FIRST_PARTY, *passed.NEW_PLUGINS]
    passed.write(names, tmp_path / "passed.json")
    said = killed.read(tmp_path / "passed.json")
    assert list(said) == sorted(names)
    assert len({each["code"] for each in said.values()}) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["passed.json"]


def test_the_code_that_a_provider_is_made_of_is_that_of_others_of_ours_too(monkeypatch):
    hashed = []
    monkeypatch.setattr(killed, "code_hash", lambda code: hashed.append(list(code)) or "0")
    passed.code_of("backend:rocm")
    assert {"cpu", "cuda", "rocm"} == {p.parent.name for p in hashed[0] if p.name == "src"}


def test_another_version_of_what_it_asks_for_is_another_provider(monkeypatch):
    before = passed.code_of("backend:openvino")
    version = passed.metadata.version
    monkeypatch.setattr(passed.metadata, "version", lambda n: version(n) + (n == "openvino") * ".1")
    assert passed.code_of("backend:openvino") != before


def test_make_notes_what_this_machine_can_show(tmp_path):
    here = Path(passed.__file__).parent
    paths = os.pathsep.join([str(passed.ROOT / "tests/tools"), str(passed.ROOT / "core/tests")])
    for script in ("passed", "killed"):
        command = [sys.executable, str(here / f"{script}.py"), str(tmp_path / script)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})
    assert set(killed.read(tmp_path / "passed")) == set(passed.shown_here())
    assert "backend:metal" not in passed.shown_here() or sys.platform == "darwin"
    assert json.loads((tmp_path / "killed").read_text())["code"] == killed.code_hash()


def test_a_new_plugin_is_made_of_templates_that_are_there():
    names = {path.name for paths in passed.NEW_PLUGINS.values() for path in paths}
    assert {"src", "pyproject.toml.tmpl", "backend-in-thirty-minutes.md"} < names
    for paths in passed.NEW_PLUGINS.values():
        assert len([path for path in paths if "templates" in path.parts]) > 10


def test_a_distribution_that_is_not_ours_is_named():
    with pytest.raises(LookupError, match="no distribution 'acme-npu' under "):
        project_of("acme-npu")
