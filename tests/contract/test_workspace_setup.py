"""The set-up behind ``make test``: whole, quick the second time, and clear where it fails."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from changelog_fragments import problems
from dependency_groups import GroupError, requirements

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tests" / "tools"


# --- dependency groups


def groups(folder: Path, text: str) -> Path:
    path = folder / "pyproject.toml"
    path.write_text(f"[dependency-groups]\n{text}", "utf-8")
    return path


def test_a_group_is_its_requirements_in_order(tmp_path: Path) -> None:
    path = groups(tmp_path, 'test = ["pytest>=8", "hypothesis"]')
    assert requirements(path, "test") == ["pytest>=8", "hypothesis"]


def test_an_included_group_is_expanded_in_place_and_names_are_normalized(tmp_path: Path) -> None:
    text = 'all = ["a", { include-group = "More.Tools" }, "z"]\nmore_tools = ["b", "c"]'
    assert requirements(groups(tmp_path, text), "ALL") == ["a", "b", "c", "z"]


def test_an_unknown_group_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(GroupError, match=r"no dependency group 'tset'; known: lint, test"):
        requirements(groups(tmp_path, "test = []\nlint = []"), "tset")


def test_a_group_that_includes_itself_is_refused(tmp_path: Path) -> None:
    text = 'a = [{ include-group = "b" }]\nb = [{ include-group = "a" }]'
    with pytest.raises(GroupError, match="dependency group 'a' includes itself: a -> b"):
        requirements(groups(tmp_path, text), "a")


def test_an_entry_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GroupError, match="dependency group 'a' holds 3"):
        requirements(groups(tmp_path, "a = [3]"), "a")


@pytest.mark.parametrize("group", ["build", "test", "lint", "demo", "bench", "model"])
def test_every_group_that_the_makefile_asks_for_is_there(group: str) -> None:
    assert requirements(ROOT / "pyproject.toml", group)


# --- finding Python


def find_python(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(TOOLS / "find_python.sh"), *arguments]
    environment = {"PATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def stub(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o755)
    return path


def test_python3_is_taken_where_it_is_new_enough(tmp_path: Path) -> None:
    python3 = stub(tmp_path, "python3", f'exec "{sys.executable}" "$@"')
    stub(tmp_path, "python3.14", "exit 0")
    assert find_python(path=tmp_path).stdout.strip() == str(python3)


def test_else_the_newest_that_really_runs(tmp_path: Path) -> None:
    stub(tmp_path, "python3", "exit 1  # too old")
    stub(tmp_path, "python3.13", "exit 127  # a version manager's empty stub")
    python = stub(tmp_path, "python3.12", f'exec "{sys.executable}" "$@"')
    stub(tmp_path, "python3.11", "exit 0")
    assert find_python(path=tmp_path).stdout.strip() == str(python)


def test_no_python_at_all_says_what_to_do(tmp_path: Path) -> None:
    answer = find_python(path=tmp_path)
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == (
        "error: no Python 3.10 to 3.14 was found (looked for: python3 python3.14 python3.13 "
        "python3.12 python3.11 python3.10).\n"
        "  remedy: install one, or say where it is: make test PYTHON=/path/to/python3\n"
    )


def test_a_python_that_was_asked_for_is_never_replaced_by_another(tmp_path: Path) -> None:
    stub(tmp_path, "python3", f'exec "{sys.executable}" "$@"')
    answer = find_python("python9", path=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr == (
        "error: PYTHON=python9 does not run, or is not Python 3.10 to 3.14.\n"
        "  remedy: give another one, e.g. make test PYTHON=python3.11\n"
    )


# --- the environment, made for real in a small workspace whose wheels lie beside it


def wheel(folder: Path, name: str, version: str) -> None:
    """A whole small wheel with one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{info}/RECORD"
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{path},sha256={digest.decode()},{len(text)}")
    files[record] = "\n".join([*lines, f"{record},,"]) + "\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


BACKEND = '''
"""A build backend of one file: an editable wheel is a .pth file and metadata."""
import pathlib, zipfile
def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "core_thing-1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as archive:
        archive.writestr("core_thing.pth", str(pathlib.Path.cwd() / "src"))
        archive.writestr("core_thing-1.dist-info/METADATA",
                         "Metadata-Version: 2.1\\nName: core-thing\\nVersion: 1\\n")
        archive.writestr("core_thing-1.dist-info/WHEEL",
                         "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        archive.writestr("core_thing-1.dist-info/RECORD", "")
    return name
'''


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("work") / "space"
    (root / "core" / "src").mkdir(parents=True)
    (root / "wheels").mkdir()
    (root / "constraints.txt").write_text("# one\ntorch==1.5\n", "utf-8")
    (root / "pyproject.toml").write_text(
        '[dependency-groups]\nbuild = ["builder"]\ntest = ["tool>=1"]\nlint = ["absent-tool"]\n',
        "utf-8",
    )
    (root / "core" / "pyproject.toml").write_text(
        '[project]\nname = "core-thing"\nversion = "1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "utf-8",
    )
    (root / "core" / "backend.py").write_text(BACKEND, "utf-8")
    (root / "core" / "src" / "core_thing.py").write_text("answer = 42\n", "utf-8")
    for name, version in [("torch", "1.5"), ("torch", "2.0"), ("builder", "1"), ("tool", "1")]:
        wheel(root / "wheels", name, version)
    yield root
    shutil.rmtree(root)


def set_up(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("PIP_")}
    environment |= {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(root / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
    }
    command = [sys.executable, str(TOOLS / "setup_env.py"), "--root", str(root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def python_says(root: Path, code: str) -> str:
    command = [root / ".venv" / "bin" / "python", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_the_first_run_installs_all_in_order_and_the_next_ones_only_what_changed(
    workspace: Path,
) -> None:
    shutil.rmtree(workspace / ".venv", ignore_errors=True)  # of another test of this module
    first = set_up(workspace, "--group", "test")
    assert first.returncode == 0, first.stdout + first.stderr
    steps = [line for line in first.stdout.splitlines() if line.startswith("[")]
    assert steps == [
        "[1/4] torch==1.5, first, so that nothing else brings another one",
        "[2/4] group 'build': builder",
        "[3/4] editable: core-thing",
        "[4/4] group 'test': tool>=1",
    ]
    code = "import torch, core_thing, tool; print(torch.version, core_thing.answer)"
    assert python_says(workspace, code) == "1.5 42"

    second = set_up(workspace, "--group", "test")
    assert second.stdout == ".venv: up to date (4 steps checked)\n"

    constraints = workspace / "constraints.txt"
    constraints.write_text("torch==2.0\n", "utf-8")
    third = set_up(workspace, "--group", "test")
    assert "[1/4] torch==2.0, first" in third.stdout
    assert python_says(workspace, "import torch; print(torch.version)") == "2.0"


def test_a_step_that_fails_says_which_and_what_to_do_and_is_tried_again(workspace: Path) -> None:
    assert set_up(workspace).returncode == 0
    failed = set_up(workspace, "--group", "lint")
    assert failed.returncode == 1
    assert failed.stdout.splitlines() == ["[1/1] group 'lint': absent-tool"]
    assert "No matching distribution found for absent-tool" in failed.stderr
    assert failed.stderr.endswith(
        "error: step 'group-lint' failed.\n"
        "  remedy: fix what pip says above, then run the same command again: it goes on from "
        "this step\n"
    )
    wheel(workspace / "wheels", "absent_tool", "1")
    again = set_up(workspace, "--group", "lint")
    assert again.returncode == 0
    assert again.stdout.splitlines()[0] == "[1/1] group 'lint': absent-tool"


def test_a_group_that_is_not_there_is_an_error_in_words(workspace: Path) -> None:
    assert set_up(workspace).returncode == 0
    answer = set_up(workspace, "--group", "tests")
    assert answer.returncode == 1
    assert answer.stderr == "error: no dependency group 'tests'; known: build, lint, test\n"


def test_a_half_made_environment_is_made_anew(workspace: Path) -> None:
    assert set_up(workspace).returncode == 0
    (workspace / ".venv" / "bin" / "python").unlink()
    answer = set_up(workspace)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(
        ".venv: does not work here (half-made, moved, or its Python is gone)\n"
        ".venv: a new virtual environment with Python "
    )
    assert "[3/3] editable: core-thing" in answer.stdout


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "mine.txt").write_text("keep", "utf-8")
    answer = set_up(tmp_path)
    assert answer.returncode == 1
    assert answer.stderr == (
        f"error: {tmp_path}/.venv is there, and is no virtual environment.\n"
        "  remedy: move it away, then run the same command again\n"
    )
    assert (tmp_path / ".venv" / "mine.txt").read_text("utf-8") == "keep"


# --- changelog fragments


def fragments(root: Path, **files: str) -> Path:
    (root / "changelog.d").mkdir()
    shutil.copy(ROOT / "pyproject.toml", root / "pyproject.toml")
    for name, text in files.items():
        (root / "changelog.d" / name).write_text(text, "utf-8")
    return root


def test_every_fragment_of_this_change_is_one_that_towncrier_takes() -> None:
    assert problems(ROOT) == []


def test_a_fragment_with_another_name_is_refused_with_the_rule(tmp_path: Path) -> None:
    names = ["3.feature.md", "3.feature.2.md", "+wheels.fix.md", "README.md"]
    good = dict.fromkeys(names, "A sentence.")
    bad = dict.fromkeys(["3.md", "3.bugfix.md", "three.feature.md", "3.feature.txt"], "A sentence.")
    found = problems(fragments(tmp_path, **good, **bad))
    assert [line.split(":")[0] for line in found] == sorted(bad)
    assert found[0] == (
        "3.bugfix.md: call it ISSUE.KIND.md, or +a-few-words.KIND.md where there is no issue; "
        "KIND is one of feature, change, fix, security"
    )


def test_a_fragment_without_a_sentence_is_refused(tmp_path: Path) -> None:
    found = problems(fragments(tmp_path, **{"4.fix.md": "\n", "5.fix.md": "loads faster"}))
    expected = "write at least one whole sentence, with its full stop"
    assert found == [f"4.fix.md: {expected}", f"5.fix.md: {expected}"]


# --- what the contributor reads


def test_contributing_names_only_targets_and_paths_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    named = re.findall(r"`make ([a-z ]+)|^make ([a-z]+)", text, flags=re.MULTILINE)
    assert {word for pair in named for word in " ".join(pair).split()} <= targets
    paths = re.findall(r"`((?:core|plugins|tests|docs|changelog\.d|\.ci)/[^`*]*)`", text)
    missing = [path for path in paths if not (ROOT / path).exists()]
    examples = ["changelog.d/17.fix.md", *(path for path in missing if "acme" in path)]
    assert set(missing) <= set(examples)


def test_every_make_target_says_what_it_does() -> None:
    answer = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for target in ("demo", "test", "lint", "format", "bench", "docs", "clean"):
        assert re.search(rf"^  {target} +[A-Z\w].{{10,}}", answer.stdout, flags=re.MULTILINE)
