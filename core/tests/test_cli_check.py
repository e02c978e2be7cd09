"""``hardpoint check`` outlives what it checks, says what failed and why, and what level is reached."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from fakes.dists import PLUGIN, FakeSite
from hardpoint.cli import main

CHECK = "declares_what_it_is"
OTHER = "loads_without_torch"
INFO = "    return BackendInfo("


def saying(lines: str) -> str:
    """The usual plugin, with other statements in its info."""
    return PLUGIN.replace(INFO, f"    {lines}\n{INFO}")


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path / "site")


def check(site: FakeSite, *options: str, code: int, **environment: str) -> str:
    ran = site.cli("check", "backend:npu", *options, COLUMNS="200", **environment)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_a_provider_that_holds_reaches_its_level(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN)
    said = check(site, "--checks", CHECK, code=0)
    assert "ok  loads" in said
    assert "1 ok in" in said
    assert "backend:npu: level loads, of the checks that ran: loads · (computes)" in said


def test_a_failed_check_says_what_the_contract_asks(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN.replace("runs nothing", " "))
    said = check(site, "--checks", CHECK, code=4)
    assert "FAILED" in said
    assert "info.summary is empty: say in one line what it is" in said
    assert "level none" in said


def test_a_check_that_kills_its_process_costs_that_check_alone(site: FakeSite) -> None:
    crash_once = (
        "import os, sys; there = os.path.exists(__file__ + '.once'); "
        "'--journal' in sys.argv and not there and (open(__file__ + '.once', 'x'), os.abort())"
    )
    site.add_backend("npu", saying(crash_once))
    said = check(site, "--checks", f"{CHECK},{OTHER}", "--json", code=4)
    found = [c["outcome"] for c in json.loads(said)["reports"][0]["checks"]]
    assert sorted(found) == ["crashed", "passed"]
    assert "took the whole process down: signal SIGABRT" in said


def test_a_check_that_stands_still_is_killed(site: FakeSite) -> None:
    lines = "import time, sys; '--journal' in sys.argv and time.sleep(600)"
    site.add_backend("npu", saying(lines))
    said = check(site, "--checks", CHECK, "--patience", "5", "--json", code=4)
    (found,) = json.loads(said)["reports"][0]["checks"]
    assert found["reason"] == "it gave no sign of life for 5 s, and was killed"


def test_a_known_failure_does_not_fail_the_run_and_is_shown(site: FakeSite, tmp_path: Path) -> None:
    site.add_backend("npu", PLUGIN.replace("runs nothing", " "))
    settings = tmp_path / "conformance.toml"
    settings.write_text(f'["backend:npu".expected-failures]\n{CHECK} = "words fail us (bug 12)"\n')
    said = check(site, "--checks", CHECK, "--settings", str(settings), code=0)
    assert "known failure" in said
    assert "words fail us (bug 12)" in said


def test_a_known_failure_that_holds_again_fails_the_run(site: FakeSite, tmp_path: Path) -> None:
    site.add_backend("npu", PLUGIN)
    settings = tmp_path / "conformance.toml"
    settings.write_text(f'["backend:npu".expected-failures]\n{CHECK} = "words fail us (bug 12)"\n')
    said = check(site, "--checks", CHECK, "--settings", str(settings), code=4)
    assert "it does not fail any more; take it out of the expected failures" in said


def test_the_reports_are_written(site: FakeSite, tmp_path: Path) -> None:
    site.add_backend("npu", PLUGIN)
    said = check(site, "--checks", CHECK, "--report", str(tmp_path / "out"), code=0)
    written = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in written] == ["backend-npu.html", "backend-npu.json"]
    assert all(f"report: {file}" in said for file in written)
    report = json.loads(written[1].read_text())
    assert (report["provider"], report["distribution"], report["version"]) == ("backend:npu", "acme-npu", "1.0")  # fmt: skip
    assert (report["level"], report["passed"], report["complete"]) == ("loads", True, False)
    assert report["info"]["precisions"] == ["fp32"]


def test_a_level_is_not_shown_by_some_of_its_checks(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN)
    said = check(site, "--checks", CHECK, "--require", "robust", code=2)
    assert "--require needs every check" in said


def test_a_provider_that_crashes_when_python_ends_is_told_of_all_the_same(site: FakeSite) -> None:
    crash = "import atexit, os, sys\n'--journal' in sys.argv and atexit.register(os.abort)\n"
    site.add_backend("npu", crash + PLUGIN)
    said = check(site, "--checks", CHECK, "--json", code=4)
    (found,) = json.loads(said)["reports"][0]["checks"]
    assert found["outcome"] == "crashed"
    assert "the process ended badly: signal SIGABRT" in found["reason"]


def test_a_known_crash_is_a_known_failure(site: FakeSite, tmp_path: Path) -> None:
    lines = "import os, sys; '--journal' in sys.argv and os.abort()"
    site.add_backend("npu", saying(lines))
    settings = tmp_path / "conformance.toml"
    settings.write_text(f'["backend:npu".expected-failures]\n{CHECK} = "bug 12"\n')
    said = check(site, "--checks", CHECK, "--settings", str(settings), code=0)
    assert "level none, with 1 known failure" in said


def test_an_expected_failure_that_no_check_is_called_is_refused(site: FakeSite, tmp_path: Path) -> None:  # fmt: skip
    site.add_backend("npu", PLUGIN)
    settings = tmp_path / "conformance.toml"
    settings.write_text('["backend:npu".expected-failures]\ndeclares_what_it_iz = "bug 12"\n')
    said = check(site, "--settings", str(settings), code=1)
    assert "expects 'declares_what_it_iz' to fail, which is no check of a backend" in said
    assert "remedy: did you mean 'declares_what_it_is'?" in said


def test_infos_that_json_cannot_hold_are_reported_all_the_same(site: FakeSite) -> None:
    odd = 'precisions=("fp32",), options=__import__("types").MappingProxyType({"a": "b"})'
    site.add_backend("npu", PLUGIN.replace('precisions=("fp32",)', odd))
    said = check(site, "--checks", CHECK, "--json", code=0)
    assert json.loads(said)["reports"][0]["info"]["options"] == {"a": "b"}


def test_a_hung_check_leaves_no_process_behind(site: FakeSite, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    hang = (
        "    import os, sys, time\n"
        f"    if '--journal' not in sys.argv: open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)\n"
    )
    probe = "    return Probe.ready(Device("
    site.add_backend("npu", PLUGIN.replace(probe, hang + probe))
    command = [
        sys.executable, "-c", "from hardpoint.cli import main; main(prog_name='hardpoint')",
        "check", "backend:npu", "--checks", "probe_answers", "--patience", "10",
    ]  # fmt: skip
    running = subprocess.Popen(
        command, env=site.environment(), cwd=site.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )  # fmt: skip
    deadline = time.monotonic() + 100
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    hung = int(note.read_text())
    running.terminate()
    running.wait(60)
    while alive(hung) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(hung)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_misspelt_check_or_level_is_met_with_the_nearest(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN)
    said = " ".join(check(site, "--checks", "declare_what_it_is", code=2).split())
    assert "no check 'declare_what_it_is' of a backend; did you mean 'declares_what_it_is'?" in said
    said = " ".join(check(site, "--require", "loaded", code=2).split())
    assert "a backend has no level 'loaded'; its levels are loads, computes, partitions" in said


def test_an_unavailable_provider_is_no_failure_and_says_so(site: FakeSite) -> None:
    probe = "    return Probe.ready(Device("
    source = PLUGIN.replace(probe, f"    return Probe.unavailable('no /dev/acme0')\n{probe}")
    site.add_backend("npu", source)
    said = check(site, "--checks", CHECK, code=0)
    assert "unavailable here, so little could be shown: no /dev/acme0" in said


def test_the_checks_are_listed_with_what_they_ask(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN)
    listed = json.loads(check(site, "--list", "--json", code=0))["checks"]
    assert {"kind": "backend", "name": CHECK, "level": "loads"}.items() <= listed[0].items() or any(
        row["name"] == CHECK for row in listed
    )
    assert all(row["title"] for row in listed)


def test_without_pytest_the_remedy_is_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = CliRunner().invoke(main, ["check", "backend:cpu"])
    assert ran.exit_code == 1
    assert "the conformance kit needs pytest, which is not installed" in ran.output
    assert 'remedy: pip install "hardpoint[testing]"' in ran.output
