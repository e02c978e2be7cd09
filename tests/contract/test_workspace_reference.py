"""The generated reference is whole and reads well (test_docs.py sees that it is not old)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest

import hardpoint
from docstring_markdown import markdown, summary
from hardpoint import errors, hookspecs
from hardpoint.cli import COMMANDS
from reference import _command, callable_text

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"


def test_every_public_name_hook_error_and_command_has_its_place() -> None:
    python, hooks, faults, commands = (
        (REFERENCE / name).read_text("utf-8")
        for name in ("python.md", "hooks.md", "errors.md", "cli.md")
    )
    for name, module in hardpoint._HOME.items():
        if module == errors.__name__:
            assert f"| `{name}` |" in faults or f"\n### `{name}`\n" in faults
        else:
            assert f"\n### `{name}`\n" in python
    for spec in hookspecs.SPECS:
        for name in vars(spec):
            assert not name.startswith("hardpoint_") or f"\n### `{name}`\n" in hooks
    for name in COMMANDS:
        assert f"\n## `hardpoint {name}`\n" in commands


def test_an_old_page_is_named_with_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tests" / "tools" / "reference.py"), "--check"]
    answer = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert answer.stdout.startswith(f"old: {tmp_path}/README.md, ")
    assert answer.stdout.endswith("remedy: run `make docs` and commit what it writes\n")


def test_a_docstring_becomes_prose_parameters_and_errors() -> None:
    docstring = """Open ``path``, see :class:`Reader`.

    More of it.

    :param path: where it lies,
        over two lines.
    :returns: a reader.
    :raises WeightsError: damaged.
    """
    assert markdown(docstring) == (
        "Open `path`, see `Reader`.\n\nMore of it.\n\n"
        "- **path**: where it lies, over two lines.\n\n"
        "- **returns**: a reader.\n- **raises WeightsError**: damaged."
    )
    assert summary(docstring) == "Open `path`, see `Reader`."


def test_a_docstring_that_is_one_field_is_a_list_of_one() -> None:
    assert (
        markdown(":raises ConfigError: not a target.") == "- **raises ConfigError**: not a target."
    )


@dataclass
class Sample:
    """A sample."""

    name: str
    facts: Mapping[str, object] = field(default_factory=dict)


def short(x: int, *rest: str, flag: bool = False, **more: object) -> str:
    return f"{x}{rest}{flag}{more}"


def keyword_only(
    path: str, *, device: str = "cpu", another_quite_long_name: int | None = None
) -> None:
    """Nothing."""


def test_a_signature_reads_as_it_is_written() -> None:
    assert callable_text("short", short) == (
        "short(x: int, *rest: str, flag: bool = False, **more: object) -> str"
    )
    assert callable_text("keyword_only", keyword_only) == (
        "keyword_only(\n    path: str,\n    *,\n    device: str = 'cpu',\n"
        "    another_quite_long_name: int | None = None,\n) -> None"
    )
    assert callable_text("Sample", Sample) == (
        "Sample(name: str, facts: Mapping[str, object] = ...) -> None"
    )


def test_a_command_shows_its_arguments_and_options() -> None:
    @click.command("convert")
    @click.argument("source")
    @click.argument("names", nargs=-1)
    @click.option("--format", type=click.Choice(["a", "b"]), default="a", help="Which one.")
    @click.option("--force", is_flag=True, help="Overwrite.")
    @click.option("-t", "--target", multiple=True, required=True, help="Where | how.")
    def convert() -> None:
        """Convert ``source``."""

    text = "\n\n".join(_command("hardpoint convert", convert))
    assert text == (
        "## `hardpoint convert`\n\n"
        "```sh\nhardpoint convert SOURCE [NAMES...] [OPTIONS]\n```\n\n"
        "Convert `source`.\n\n"
        "| option | what it does |\n|---|---|\n"
        "| `--format a|b` | Which one. Default: `a`. |\n"
        "| `--force` | Overwrite. |\n"
        "| `-t, --target TEXT` | Where \\| how. Required. May be given several times. |"
    )


@pytest.mark.parametrize("name", ["README.md", "python.md", "hooks.md", "errors.md"])
def test_no_page_shows_restructured_text_or_an_address_in_memory(name: str) -> None:
    text = (REFERENCE / name).read_text("utf-8")
    for leftover in (":param", ":raises", ":class:", " object at 0x", "\n``"):
        assert leftover not in text.replace("\n```", "")
