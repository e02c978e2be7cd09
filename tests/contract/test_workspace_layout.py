"""The workspace is laid out as the design says, and stays so."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hardpoint
from dependency_groups import read_toml

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "core" / "src"
DISTRIBUTIONS = [
    path.parent
    for pattern in ("core", "plugins/*", "contrib/*")
    for path in sorted(ROOT.glob(f"{pattern}/pyproject.toml"))
]
MODULES = [path for folder in DISTRIBUTIONS for path in sorted((folder / "src").rglob("*.py"))]
KINDS = ("serializer", "backend", "partitioner", "transport")

each_distribution = pytest.mark.parametrize(
    "folder", DISTRIBUTIONS, ids=lambda path: path.relative_to(ROOT).as_posix()
)


def project(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = read_toml(folder / "pyproject.toml")["project"]
    return table


def providers(folder: Path) -> Iterator[tuple[str, str, str]]:
    """(group, provider name, module) of each entry point in a provider group."""
    for group, entries in project(folder).get("entry-points", {}).items():
        if group.startswith("hardpoint."):
            for name, module in entries.items():
                yield group, name, module


def package(folder: Path) -> Path:
    """The one package of a distribution, named as the distribution is."""
    return folder / "src" / project(folder)["name"].replace("-", "_")


# --- distributions


def test_the_first_providers_are_here() -> None:
    names = {project(folder)["name"] for folder in DISTRIBUTIONS}
    assert names >= {
        "hardpoint",
        "hardpoint-cpu",
        "hardpoint-gloo",
        "hardpoint-partitioners",
        "hardpoint-safetensors",
    }


def test_the_root_pyproject_is_tool_configuration_only() -> None:
    assert not {"project", "build-system"} & set(read_toml(ROOT / "pyproject.toml"))


def test_every_folder_of_plugins_is_a_distribution() -> None:
    folders = {path for path in ROOT.glob("plugins/*") if path.is_dir()}
    assert folders <= set(DISTRIBUTIONS)


@each_distribution
def test_a_distribution_has_src_layout_and_ships_its_types(folder: Path) -> None:
    assert (package(folder) / "__init__.py").is_file()
    assert (package(folder) / "py.typed").is_file()
    assert [path.name for path in (folder / "src").iterdir() if path.suffix != ".egg-info"] == [
        package(folder).name
    ], "one importable package a distribution"


@each_distribution
def test_a_distribution_is_named_after_its_folder(folder: Path) -> None:
    prefix = {"core": "hardpoint", "plugins": "hardpoint-", "contrib": "hardpoint-contrib-"}
    home = folder.relative_to(ROOT).parts[0]
    expected = prefix[home] + ("" if home == "core" else folder.name)
    assert project(folder)["name"] == expected


@each_distribution
def test_a_distribution_states_its_license_and_carries_it(folder: Path) -> None:
    assert project(folder)["license"] == "Apache-2.0"
    assert project(folder)["license-files"] == ["LICENSE"]
    assert (folder / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")


@each_distribution
def test_a_distribution_has_a_readme_that_says_what_it_is(folder: Path) -> None:
    readme = (folder / "README.md").read_text("utf-8")
    assert readme.startswith(f"# {project(folder)['name']}\n")
    assert len(readme.split()) >= 40, "a title is not a README"


@each_distribution
def test_a_distribution_describes_itself(folder: Path) -> None:
    facts = project(folder)
    assert facts["readme"] == "README.md"
    assert facts["requires-python"] == ">=3.10"
    assert len(facts["description"]) <= 100
    assert facts["description"].endswith(".")


@each_distribution
def test_a_plugin_asks_for_the_core_and_never_for_its_newest(folder: Path) -> None:
    facts = project(folder)
    if facts["name"] == "hardpoint":
        pytest.skip("the core itself")
    assert "hardpoint>=0.1,<1" in facts["dependencies"]


def test_all_distributions_have_the_version_of_the_core() -> None:
    versions = {project(folder)["name"]: project(folder)["version"] for folder in DISTRIBUTIONS}
    assert set(versions.values()) == {hardpoint.__version__}, versions


@each_distribution
def test_entry_points_name_a_provider_and_a_light_module_of_the_distribution(folder: Path) -> None:
    found = list(providers(folder))
    if project(folder)["name"] == "hardpoint":
        assert found == [], "the core ships no provider"
        return
    if folder.parent.name == "plugins":
        assert found, "a plugin provides something"
    for group, name, module in found:
        assert group in {f"hardpoint.{kind}.v1" for kind in KINDS}
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert module.split(".")[0] == package(folder).name
        path = folder / "src" / Path(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_the_torch_that_is_pinned_is_one_that_every_distribution_accepts() -> None:
    from packaging.requirements import Requirement

    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    [pin] = [line.removeprefix("torch==") for line in pins if line.startswith("torch==")]
    for folder in DISTRIBUTIONS:
        wanted = [Requirement(text) for text in project(folder)["dependencies"]]
        for requirement in wanted:
            if requirement.name == "torch":
                assert pin in requirement.specifier, folder


# --- modules


def test_no_module_reaches_300_lines() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in MODULES}
    long = {path.relative_to(ROOT).as_posix(): n for path, n in lengths.items() if n >= 300}
    assert long == {}


def module_name(path: Path) -> str:
    """The dotted name of a module of the core."""
    parts = path.relative_to(CORE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def names_imported(tree: ast.Module, module: str, *, whole: bool) -> Iterator[tuple[str, str]]:
    """(module, name) of each import; where not ``whole``, only what importing the file imports."""
    package_of = module.split(".")
    for node in _reachable(tree, whole=whole):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package_of[: len(package_of) - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((source, alias.name) for alias in node.names)


def _reachable(tree: ast.AST, *, whole: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not whole and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if not whole and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for alternative in node.orelse:
                yield alternative
                yield from _reachable(alternative, whole=whole)
            continue
        yield node
        yield from _reachable(node, whole=whole)


CORE_TREES = {
    module_name(path): ast.parse(path.read_text("utf-8")) for path in sorted(CORE.rglob("*.py"))
}


def test_the_core_never_imports_a_plugin() -> None:
    for module, tree in CORE_TREES.items():
        for source, name in names_imported(tree, module, whole=True):
            assert not source.startswith("hardpoint_"), f"{module} imports {source}.{name}"


def test_the_core_has_no_import_cycle() -> None:
    edges: dict[str, set[str]] = {module: set() for module in CORE_TREES}
    for module, tree in CORE_TREES.items():
        for source, name in names_imported(tree, module, whole=False):
            for target in (f"{source}.{name}", source):
                if source == "hardpoint":  # a public name: it lives where the table says
                    target = hardpoint._HOME.get(name, target)
                if target in edges and target != "hardpoint":
                    edges[module].add(target)
                    break
    assert find_cycle(edges) == []


def find_cycle(edges: dict[str, set[str]]) -> list[str]:
    """One cycle, as the names along it, or nothing."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges[module]):
            if cycle := visit(target, [*path, module]):
                return cycle
        done.add(module)
        return []

    for module in sorted(edges):
        if cycle := visit(module, []):
            return cycle
    return []


def test_the_search_for_cycles_finds_one() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_only_the_face_of_the_core_uses_the_default_registry() -> None:
    allowed = (
        "hardpoint.api",
        "hardpoint.api_weights",
        "hardpoint.cli",
        "hardpoint.registry.registry",
        "hardpoint",
    )
    for module, tree in CORE_TREES.items():
        if module in allowed or module.startswith("hardpoint.cli."):
            continue
        for node in ast.walk(tree):
            named = getattr(node, "id", "") or getattr(node, "attr", "")
            imported = [
                alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")
            ]
            assert "default_registry" not in [named, *imported], (
                f"{module}:{getattr(node, 'lineno', '?')}: take a registry as an argument"
            )


# --- import


def loaded_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in json.loads(answer.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    "statement",
    [
        "import hardpoint",
        "import hardpoint; hardpoint.Registry",
        "import hardpoint; hardpoint.hookimpl, hardpoint.BackendInfo, hardpoint.Assignment",
        "import hardpoint; hardpoint.Serializer, hardpoint.Transport, hardpoint.CompileOptions",
    ],
)
def test_importing_the_light_names_loads_no_torch_no_plugin_and_no_cli_library(
    statement: str,
) -> None:
    loaded = loaded_after(statement)
    assert not loaded & {"torch", "numpy", "click", "rich_click", "rich", "transformers"}
    assert not {name for name in loaded if name.startswith("hardpoint_")}


def test_import_hardpoint_alone_does_not_even_load_pluggy() -> None:
    assert "pluggy" not in loaded_after("import hardpoint")


# --- what no committed file may say


def committed_files() -> list[Path]:
    """What git tracks, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = (ROOT / name.decode() for name in answer.stdout.split(b"\0") if name)
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_folder_of_one_machine_or_the_host_of_a_package_registry() -> None:
    home = re.compile(
        rb"(?<![\w.$}/])/(?:home/(?!you\b|user\b)\w+|root|Users/\w+|opt/\w+|work)/[\w.]"
    )
    registry = re.compile(
        rb"\b(?:[\w-]+\.)*(?:pypi|pythonhosted|npmjs|debian|download\.pytorch)\.(?:org|com|io|net)\b"
    )
    here = str(ROOT).encode()
    found = []
    for path in committed_files():
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            if b"\0" in line:
                break  # not text
            if here in line or home.search(line) or registry.search(line):
                found.append(
                    f"{path.relative_to(ROOT)}:{number}: {line[:120].decode('utf-8', 'replace')}"
                )
    assert found == []
