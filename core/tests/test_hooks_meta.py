"""Nothing of the contract is without a test, and no exception is there for show."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hardpoint import errors
from hardpoint.hookspecs import SPECS

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent.parent
SOURCES = [
    *(REPOSITORY / "core" / "src").rglob("*.py"),
    *(REPOSITORY / "plugins").glob("*/src/**/*.py"),
]
HOOKS = sorted(name for spec in SPECS for name in vars(spec) if name.startswith("hardpoint_"))
EXCEPTIONS = sorted(
    name
    for name in errors.__all__
    # The two bases are for `except` only.
    if isinstance(getattr(errors, name), type) and name not in ("HardpointError", "ProviderError")
)


def test_there_are_three_hooks_for_each_kind_and_one_for_observers() -> None:
    assert len(HOOKS) == 13


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test_of_its_name(hook: str) -> None:
    functions = {
        node.name
        for file in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    assert f"test_hook_{hook}" in functions


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_every_exception_and_warning_is_used_by_some_source(name: str) -> None:
    # Called, or handed to a function that calls it; naming it in `except` does not count.
    uses = [
        node
        for file in SOURCES
        if file.name != "errors.py" and name in (text := file.read_text("utf-8"))
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call)
        for node in (call.func, *call.args)
        if (isinstance(node, ast.Name) and node.id == name)
        or (isinstance(node, ast.Attribute) and node.attr == name)
    ]
    assert uses, f"no source raises {name}: use it, or take it out of the contract"
