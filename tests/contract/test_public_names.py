"""The public API is a list that changes on purpose only."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import hardpoint

MANIFEST = Path(__file__).with_name("public_names.txt")
TREE = ast.parse(Path(hardpoint.__file__).read_text("utf-8"))


def manifest() -> list[str]:
    lines = MANIFEST.read_text("utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_the_public_names_are_those_of_the_manifest() -> None:
    missing = sorted(set(manifest()) - set(hardpoint.__all__))
    added = sorted(set(hardpoint.__all__) - set(manifest()))
    assert not missing, f"removed: plugins and callers break; that takes a new major: {missing}"
    assert not added, f"new: a promise to keep; add a line to {MANIFEST.name}: {added}"


def test_the_manifest_is_sorted_and_has_no_name_twice() -> None:
    assert manifest() == sorted(set(manifest()))


def test_no_public_name_is_listed_twice() -> None:
    names = [name for group in hardpoint._WHERE.values() for name in group.split()]
    assert len(names) == len(set(names))
    assert len(hardpoint.__all__) == len(set(hardpoint.__all__))


def test_what_type_checkers_see_is_what_runs() -> None:
    [block] = [
        node
        for node in TREE.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    seen: dict[str, str] = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom), ast.unparse(statement)
        for alias in statement.names:
            assert alias.asname == alias.name, f"{alias.name}: re-export it as itself"
            seen[alias.name] = statement.module or ""
    assert seen == hardpoint._HOME


@pytest.mark.parametrize("name", hardpoint.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(hardpoint, name) is not None
    assert name in dir(hardpoint)


@pytest.mark.parametrize("name", sorted(set(hardpoint.__all__) - {"__version__"}))
def test_every_public_class_and_function_says_what_it_is(name: str) -> None:
    value = getattr(hardpoint, name)
    if inspect.isclass(value) or inspect.isfunction(value):  # the rest are type aliases
        assert (value.__doc__ or "").strip(), f"hardpoint.{name} has no docstring"


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hardpoint' has no attribute 'complie'"):
        hardpoint.complie  # noqa: B018
