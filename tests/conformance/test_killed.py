"""Mutants are left out only while the kit, and they, are what they were when all were killed."""

from pathlib import Path

import killed

NAMES = [f"check-{i}" for i in range(600)]


def left_out(said, code):
    return [name for name in NAMES if killed.reason(name, said, code)]


def test_of_a_kit_that_killed_all_one_in_six_runs_again_and_the_others_say_why():
    skipped = left_out({"code": "abc", "date": "2026-11-22"}, "abc")
    assert 400 < len(skipped) < 560
    assert killed.reason(skipped[0], {"code": "abc", "date": "2026-11-22"}, "abc") == (
        "killed on 2026-11-22 by this very kit (`make conformance` runs all)"
    )


def test_of_another_kit_or_where_nothing_is_known_all_run():
    assert left_out({"code": "abc", "date": "2026-11-22"}, "abd") == []
    assert left_out({}, "abc") == []


def test_a_file_that_changes_comes_or_goes_is_another_kit(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.py").write_text("x = 1\n")
    seen = {killed.code_hash([tmp_path])}
    (tmp_path / "a" / "one.py").write_text("x = 2\n")
    seen.add(killed.code_hash([tmp_path]))
    (tmp_path / "two.py").write_text("")
    seen.add(killed.code_hash([tmp_path]))
    (tmp_path / "a" / "one.py").rename(tmp_path / "one.py")
    seen.add(killed.code_hash([tmp_path]))
    assert len(seen) == 4
    (tmp_path / "notes.txt").write_text("no code")
    assert killed.code_hash([tmp_path]) in seen


def test_the_hash_is_of_the_kit_of_the_mutants_and_of_what_runs_them():
    names = {p.name for given in killed.CODE for p in (given, *given.rglob("*.py"))}
    assert {"plugin.py", "claims.py", "mutants_every.py", "harness.py"} <= names
    assert "test_mutants_backend.py" in names


def test_what_is_written_is_read_and_holds_for_the_code_as_it_is(tmp_path: Path):
    killed.write(tmp_path / "killed.json")
    said = killed.read(tmp_path / "killed.json")
    assert said["code"] == killed.code_hash()
    assert [path.name for path in tmp_path.iterdir()] == ["killed.json"]
    assert killed.read(tmp_path / "nothing") == {}
