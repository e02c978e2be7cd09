"""Checks are left out only while the kit, and the code, are what they were when it passed."""

import json
from pathlib import Path

import pytest

import passed
from conformance_reports import project_of
from first_party import FIRST_PARTY

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
    said = passed.read(tmp_path / "passed.json")
    assert list(said) == sorted(names)
    assert len({each["code"] for each in said.values()}) == len(names)
    assert [path.name for path in tmp_path.iterdir()] == ["passed.json"]


def test_a_new_plugin_is_made_of_templates_that_are_there():
    names = {path.name for paths in passed.NEW_PLUGINS.values() for path in paths}
    assert {"scaffold", "backend-in-thirty-minutes.md"} < names
    for paths in passed.NEW_PLUGINS.values():
        assert len([path for path in paths if "templates" in path.parts]) > 10


def test_a_distribution_that_is_not_ours_is_named():
    with pytest.raises(LookupError, match="no distribution 'acme-npu' under "):
        project_of("acme-npu")
