"""What ``hardpoint new`` writes: complete, in order, and clean for ruff and mypy."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hardpoint
from dependency_groups import tomllib
from hardpoint import ConfigError
from hardpoint.interfaces.kinds import API_MAJOR, API_MINOR, KINDS, Kind
from hardpoint.scaffold import write as writing
from hardpoint.scaffold.contents import NewFile, contents
from hardpoint.scaffold.names import LONGEST, Names
from scaffolded import make

ROOT = Path(__file__).resolve().parents[2]
SETS: list[tuple[Kind, ...]] = [*((kind,) for kind in KINDS), KINDS]

needs_linters = pytest.mark.skipif(
    not (importlib.util.find_spec("ruff") and importlib.util.find_spec("mypy")),
    reason="needs ruff and mypy: `make lint` installs them",
)
each_set = pytest.mark.parametrize("kinds", SETS, ids=",".join)


def texts(kinds: tuple[Kind, ...], name: str = "acme") -> dict[str, str]:
    return {file.path: file.text for file in contents(Names.parse(name), kinds)}


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all, because most of the time goes into PyTorch's types."""
    return tmp_path_factory.mktemp("mypy")


def clean(folder: Path, *command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, "MYPYPATH": "src"},  # as if it were installed
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_linters
@each_set
def test_it_is_clean_for_ruff_and_strict_mypy(
    kinds: tuple[Kind, ...], tmp_path: Path, mypy_cache: Path
) -> None:
    folder = make(tmp_path, "acme", kinds)
    # In the folder itself, so that its own settings count.
    clean(folder, "ruff", "check", "--no-cache", ".")
    clean(folder, "ruff", "format", "--no-cache", "--check", ".")
    clean(folder, "mypy", "--cache-dir", str(mypy_cache))


@needs_linters
@pytest.mark.parametrize("name", ["x", "a-b-c", "w" * LONGEST, "ab_" * 7 + "ab"])
def test_the_shortest_and_the_longest_name_leave_the_lines_in_shape(
    name: str, tmp_path: Path
) -> None:
    folder = make(tmp_path, name)
    clean(folder, "ruff", "check", "--no-cache", ".")
    clean(folder, "ruff", "format", "--no-cache", "--check", ".")


@each_set
def test_no_mark_of_a_template_is_left(kinds: tuple[Kind, ...]) -> None:
    for path, text in texts(kinds).items():
        assert not re.search(r"<<\w+>>", text), path
        assert text == "" or (text.endswith("\n") and not text.endswith("\n\n")), path


@each_set
def test_there_is_an_entry_point_and_a_test_class_for_each_kind(kinds: tuple[Kind, ...]) -> None:
    files = texts(kinds)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"] == {
        f"hardpoint.{kind}.v{API_MAJOR}": {"acme": "hardpoint_acme.plugin"} for kind in kinds
    }
    classes = [
        node for node in ast.walk(ast.parse(files["tests/test_conformance.py"]))
        if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    assert [node.name for node in classes] == [f"TestAcme{kind.capitalize()}" for kind in kinds]
    assert files["src/hardpoint_acme/plugin.py"].count(
        f"requires_api=({API_MAJOR}, {API_MINOR}),"
    ) == len(kinds)
    for kind in KINDS:
        assert (f"tests/test_{kind}.py" in files) == (kind in kinds)


def test_it_describes_itself_and_asks_for_this_core() -> None:
    files = texts(("backend", "transport"), "acme_npu")
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["name"] == "hardpoint-acme-npu"
    assert project["description"] == "hardpoint backend and transport: AcmeNpu."
    current = ".".join(hardpoint.__version__.split(".")[:2])
    assert f"hardpoint>={current},<1" in project["dependencies"]
    assert project["optional-dependencies"]["test"][0] == "hardpoint[standard,testing]"
    ci = files[".github/workflows/ci.yml"]
    assert f'core: ["{current}"]' in ci
    assert "hardpoint check backend:acme_npu transport:acme_npu" in ci
    assert 'pip install "hardpoint[standard,testing]==${{ matrix.core }}.*"' in ci


def uncommented(settings: str) -> str:
    """The settings with every mark of a comment off, from the first that is one."""
    lines = settings.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("# ["))
    prose = ("# Gloo's", "# does not")
    return "\n".join(
        line.removeprefix("#").removeprefix(" ")
        for line in lines[first:]
        if not line.startswith(prose)
    )


def test_the_settings_of_the_kit_are_commented_out_but_for_what_gloo_gets_wrong() -> None:
    known = tomllib.loads(texts(KINDS)["conformance.toml"])
    assert list(known) == ["transport:acme"]
    (failure,) = known["transport:acme"]["expected-failures"].items()
    assert failure[0] == "strided_tensors_are_right_or_refused"
    assert (
        "takes the memory of a tensor that is not contiguous for that of a contiguous" in failure[1]
    )
    assert tomllib.loads(texts(("backend",))["conformance.toml"]) == {}


def test_the_settings_are_ones_that_the_kit_knows(tmp_path: Path) -> None:
    from hardpoint.testing.settings import Settings

    path = tmp_path / "conformance.toml"
    path.write_text(uncommented(texts(KINDS)["conformance.toml"]), "utf-8")
    assert Settings.read(path, "backend:acme").expected_failures
    for kind in KINDS:
        assert Settings.read(path, f"{kind}:acme") != Settings(path=path)


def test_the_readme_names_every_file_there_is() -> None:
    files = texts(KINDS)
    readme = files["README.md"]
    assert readme.startswith("# hardpoint-acme\n")
    for path in files:
        assert f"`{path}`" in readme or path.endswith("py.typed"), path
    for kind in KINDS:
        assert f"**The {kind}**" in readme


def test_the_license_is_the_one_that_hardpoint_has() -> None:
    assert texts(("backend",))["LICENSE"] == (ROOT / "LICENSE").read_text("utf-8")


def test_it_uses_the_public_api_alone_and_its_hooks_are_light() -> None:
    allowed = {"hardpoint", "hardpoint.planning", "hardpoint.testing"}
    for path, text in texts(KINDS).items():
        if path.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                modules += [a.name for a in node.names] if isinstance(node, ast.Import) else []
                ours = {m for m in modules if m.split(".")[0] == "hardpoint"}
                assert ours <= allowed, (path, ours)
    for light in ("plugin", "origin", "device"):
        tree = ast.parse(texts(KINDS)[f"src/hardpoint_acme/{light}.py"])
        tops = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        assert not [n for n in tops if "torch" in ast.unparse(n)]


def test_no_module_reaches_300_lines() -> None:
    for path, text in texts(KINDS, "w" * LONGEST).items():
        assert not path.endswith(".py") or text.count("\n") < 300, path


# --- writing


FILES = [NewFile("a.txt", "a\n", "one"), NewFile("deep/er/b.txt", "b\n", "two")]


def test_all_files_are_written_with_plain_line_ends_and_usual_permissions(tmp_path: Path) -> None:
    writing.write(FILES, tmp_path / "new")
    assert (tmp_path / "new" / "deep" / "er" / "b.txt").read_bytes() == b"b\n"
    beside = tmp_path / "beside"
    beside.mkdir()
    assert (tmp_path / "new").stat().st_mode == beside.stat().st_mode


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    writing.write(FILES, tmp_path / "new")
    assert (tmp_path / "new" / "a.txt").exists()


def test_nothing_is_ever_overwritten(tmp_path: Path) -> None:
    folder, file, link = tmp_path / "folder", tmp_path / "file", tmp_path / "link"
    folder.mkdir()
    (folder / "mine").write_text("precious")
    file.write_text("precious")
    link.symlink_to(tmp_path / "nowhere")
    for there in (folder, file, link):
        with pytest.raises(ConfigError) as caught:
            writing.write(FILES, there)
        assert f"there is something at {there} already" in str(caught.value)
        assert "--output DIR" in caught.value.remedy
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "link"]
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_failure_half_way_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Path.write_text

    def full(path: Path, *more: object, **named: object) -> int:
        if path.name == "b.txt":
            raise OSError(28, "No space left on device")
        return usual(path, *more, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ConfigError, match="cannot be written") as caught:
        writing.write(FILES, tmp_path / "new")
    assert "No space left" in caught.value.cause
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        writing.write(FILES, tmp_path / "no" / "where" / "new")
    assert "name a folder that is there and writable" in str(caught.value)
