"""The command line as a whole: light, complete, with exit codes that mean something."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import rich_click as click

import hardpoint
from fakes.dists import FakeSite
from hardpoint.cli import COMMANDS
from hardpoint.cli.output import EXIT_CODES, exit_code


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    return site


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["inspect", "--help"],
                                       ["completion", "zsh"], ["doctor", "--help"]])  # fmt: skip
def test_it_imports_neither_torch_nor_a_plugin(site: FakeSite, arguments: list[str]) -> None:
    code = """
import sys
from hardpoint.cli import main
try:
    main(sys.argv[1:], prog_name="hardpoint")
finally:
    heavy = ("torch", "numpy", "acme", "hardpoint_")
    print("LOADED", sorted(name for name in sys.modules if name.startswith(heavy)))
"""
    ran = site.run("-c", code, *arguments)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("LOADED []\n"), ran.stdout


def test_importing_the_package_imports_no_command_line_library(site: FakeSite) -> None:
    code = """
import sys, hardpoint
hardpoint.Registry, hardpoint.Policy
print(sorted({"torch", "click", "rich", "rich_click"} & set(sys.modules)))
"""
    assert site.run("-c", code).stdout == "[]\n"


def test_help_shows_every_command_and_every_exit_code(site: FakeSite) -> None:
    said = " ".join(site.cli("--help").stdout.split())
    for name, (_, summary) in COMMANDS.items():
        assert f"{name} {summary}" in said
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in said


def test_the_version_is_the_packages(site: FakeSite) -> None:
    assert hardpoint.__version__ in site.cli("--version").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_begins_its_help_alike(name: str) -> None:
    module, _ = COMMANDS[name]
    assert importlib.util.find_spec(module) is not None, f"{module} is missing"
    command = importlib.import_module(module).command
    assert isinstance(command, click.Command)
    assert command.help


def test_an_unknown_command_is_a_usage_error(site: FakeSite) -> None:
    ran = site.cli("lst")
    assert ran.returncode == 2
    assert "No such command" in ran.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (hardpoint.ConfigError("x"), 1),
        (hardpoint.CompileError("x"), 1),
        (hardpoint.ProviderDenied("x"), 3),
        (hardpoint.ProviderUnavailable("x"), 3),
        (hardpoint.VerificationError("x"), 4),
        (hardpoint.PackageError("x"), 4),
        (hardpoint.LockMismatch("x"), 4),
    ],
)
def test_each_error_has_its_exit_code(error: hardpoint.HardpointError, code: int) -> None:
    assert exit_code(error) == code
    assert code in EXIT_CODES


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_the_shells_own(site: FakeSite, shell: str) -> None:
    ran = site.cli("completion", shell)
    assert ran.returncode == 0
    assert f"_HARDPOINT_COMPLETE={shell}_complete" in ran.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=ran.stdout, text=True, check=False)
        assert checked.returncode == 0


def complete(site: FakeSite, *words: str) -> list[str]:
    """What bash is offered after these words, as it splits them."""
    environment = {
        "_HARDPOINT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("hardpoint", *words)),
        "COMP_CWORD": str(len(words)),
    }
    return [line.partition(",")[2] for line in site.cli(**environment).stdout.splitlines()]


def test_commands_options_and_choices_complete(site: FakeSite) -> None:
    assert complete(site, "do") == ["doctor"]
    assert "--timeout" in complete(site, "doctor", "--t")
    assert complete(site, "list", "--kind", "tr") == ["transport"]


def test_provider_names_complete_also_where_bash_splits_them_at_the_colon(site: FakeSite) -> None:
    assert complete(site, "doctor", "backend:np") == ["npu"]
    assert complete(site, "doctor", "backend", ":", "np") == ["npu"]
    assert "npu" in complete(site, "doctor", "backend", ":")
    assert "backend:npu" in complete(site, "doctor", "back")
    assert complete(site, "doctor", "backend", ":", "cpu", "backend", ":", "np") == ["npu"]
    assert site.imported() == set()


def test_json_holds_nothing_but_json(site: FakeSite) -> None:
    ran = site.cli("list", "--json", HARDPOINT_DENY="backend:nothing")
    json.loads(ran.stdout)
    assert ran.stderr.startswith("warning: policy names 'backend:nothing'")
