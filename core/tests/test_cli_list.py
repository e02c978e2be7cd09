"""``hardpoint list``, read as a user and as a script would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.dists import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu", version="1.2")
    return site


def row(output: str, name: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if name in line.split())
    return line.split()


def test_a_table_shows_kind_name_distribution_version_state_and_policy(site: FakeSite) -> None:
    ran = site.cli("list", "--kind", "backend")
    assert ran.returncode == 0
    columns = ["kind", "name", "distribution", "version", "state", "policy"]
    assert row(ran.stdout, "distribution") == columns
    wanted = ["backend", "npu", "acme-npu", "1.2", "discovered", "allowed"]
    assert row(ran.stdout, "npu") == wanted


def test_a_piped_table_is_neither_cut_nor_wrapped_nor_coloured(site: FakeSite) -> None:
    long = "n" * 150
    site.add_backend(long)
    ran = site.cli("list", COLUMNS="40")
    assert f"acme-{long}" in ran.stdout
    assert "\x1b" not in ran.stdout


def test_names_are_never_read_as_markup(site: FakeSite) -> None:
    ran = site.cli("list", "--kind", "backend", HARDPOINT_DENY="backend:[red]x")
    assert ran.returncode == 0
    assert "warning: policy names 'backend:[red]x', which is not installed" in ran.stderr


def test_why_a_provider_cannot_be_used_is_said_on_stderr(site: FakeSite) -> None:
    site.add_backend("npu", dist="other-npu")
    ran = site.cli("list", "--kind", "backend")
    assert ran.returncode == 0
    assert "duplicate" in ran.stdout
    assert "acme-npu 1.2 and other-npu 1.0 claim the name" in ran.stderr


def test_damaged_metadata_is_noted_and_listed_in_json(site: FakeSite) -> None:
    site.add("acme-damaged", metadata=b"")
    ran = site.cli("list")
    assert "acme_damaged-1.0.dist-info: its metadata has no Name" in ran.stderr
    listed = json.loads(site.cli("list", "--json").stdout)
    assert len(listed["problems"]) == 1


def test_with_nothing_installed_it_says_how_to_begin(tmp_path: Path) -> None:
    site = FakeSite(tmp_path)
    code = """
import sys
sys.argv = ["hardpoint", "list"]
from hardpoint.registry.registry import default_registry
for record in default_registry().records():
    default_registry().remove(record.kind, record.name)
from hardpoint.cli import main
main()
"""
    ran = site.run("-c", code)
    assert 'no provider is installed; pip install "hardpoint[standard]"' in ran.stdout


def test_an_unusable_policy_ends_it_with_a_message_and_no_traceback(site: FakeSite) -> None:
    ran = site.cli("list", HARDPOINT_ALLOW="npu")
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: HARDPOINT_ALLOW holds 'npu'")
    assert "Traceback" not in ran.stderr


def test_the_traceback_is_there_for_those_who_ask(site: FakeSite) -> None:
    ran = site.cli("list", HARDPOINT_ALLOW="npu", HARDPOINT_DEBUG="1")
    assert ran.returncode == 1
    assert "Traceback (most recent call last)" in ran.stderr


def test_an_error_under_json_is_json(site: FakeSite) -> None:
    ran = site.cli("list", "--json", HARDPOINT_ALLOW="npu")
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["error"] == "ConfigError"
    assert ran.stderr == ""
