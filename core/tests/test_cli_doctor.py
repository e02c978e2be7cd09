"""``hardpoint doctor`` survives what it examines, and says how each provider is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.dists import PLUGIN, FakeSite

PROBE = "    return Probe.ready(Device("


def probing(lines: str) -> str:
    """The usual plugin, with other statements in its probe."""
    return PLUGIN.replace(PROBE, f"    {lines}\n{PROBE}")


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    return FakeSite(tmp_path / "site")


def doctor(
    site: FakeSite, *names: str, code: int = 3, timeout: str = "30", **environment: str
) -> dict[str, dict[str, str]]:
    keys = [f"backend:{name}" for name in names]
    ran = site.cli("doctor", *keys, "--json", "--timeout", timeout, **environment)
    assert ran.returncode == code, ran.stdout + ran.stderr
    return {row["provider"]: row for row in json.loads(ran.stdout)["providers"]}


def test_a_ready_provider_shows_its_devices_notes_and_what_is_unverified(site: FakeSite) -> None:
    source = PLUGIN.replace('precisions=("fp32",)', 'precisions=(), unverified="no hardware here"')
    source = source.replace('runs nothing"))', 'runs nothing", memory=2**31), notes=("deep",))')
    site.add_backend("npu", source)
    ran = site.cli("doctor", "backend:npu")
    assert ran.returncode == 0, ran.stderr
    said = " ".join(ran.stdout.split())
    assert "backend:npu acme-npu 1.0 ready 0: a device that runs nothing, 2.1 GB" in said
    assert "unverified: no hardware here note: deep" in said
    assert said.endswith("1 ready")


def test_the_probe_is_deep(site: FakeSite) -> None:
    site.add_backend("npu", probing("assert request.deep"))
    assert doctor(site, "npu", code=0)["backend:npu"]["state"] == "ready"


def test_unavailable_is_not_broken(site: FakeSite) -> None:
    lines = "return Probe.unavailable('no /dev/acme0', remedy='plug it in')"
    site.add_backend("npu", probing(lines))
    found = doctor(site, "npu", code=0)["backend:npu"]
    assert (found["state"], found["reason"], found["remedy"]) == (
        "unavailable", "no /dev/acme0", "plug it in"
    )  # fmt: skip


@pytest.mark.skipif(os.name != "posix", reason="signals are told apart on POSIX only")
def test_a_crash_is_told_by_its_signal_with_the_end_of_stderr(site: FakeSite) -> None:
    site.add_backend("abort", probing("import os; os.abort()"))
    site.add_backend("segv", "import ctypes\nctypes.string_at(0)\n")
    found = doctor(site, "abort", "segv")
    assert found["backend:abort"]["reason"] == "crashed with signal SIGABRT"
    assert "Fatal Python error: Aborted" in found["backend:abort"]["stderr"]
    assert found["backend:segv"]["reason"] == "crashed with signal SIGSEGV"
    assert "report it to the authors of acme-segv" in found["backend:segv"]["remedy"]


def test_a_hanging_provider_is_killed_with_all_that_it_started(site: FakeSite) -> None:
    started = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'input()'])"
    site.add_backend("hang", probing(f"{started}; import time; time.sleep(3600)"))
    site.add_backend("npu")
    found = doctor(site, "hang", "npu", timeout="3")
    assert found["backend:hang"]["reason"] == "no answer within 3 s"
    assert "--timeout" in found["backend:hang"]["remedy"]
    assert found["backend:npu"]["state"] == "ready"


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_it_at_once_and_kills_what_runs(site: FakeSite) -> None:
    begun = site.root / "pid"
    lines = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(3600)"
    site.add_backend("hang", probing(lines))
    code = "from hardpoint.cli import main; main(['doctor', 'backend:hang'])"
    # A test run that a shell put into the background ignores SIGINT, and so would its children.
    running = subprocess.Popen(
        [sys.executable, "-c", code], env=site.environment(), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (begun.exists() and begun.read_text()):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "Aborted" in stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun.read_text()), 0)


def test_leaving_the_process_at_once_is_told(site: FakeSite) -> None:
    site.add_backend("npu", probing("import os; os._exit(0)"))
    found = doctor(site, "npu")["backend:npu"]
    assert found["reason"] == "its process ended with exit code 0 before it could answer"


def test_a_broken_provider_shows_the_root_cause(site: FakeSite) -> None:
    site.add_backend("npu", "import acmesdk_not_there\n")
    found = doctor(site, "npu")["backend:npu"]
    assert found["state"] == "broken"
    assert found["reason"] == "ModuleNotFoundError: No module named 'acmesdk_not_there'"


def test_what_a_plugin_prints_does_not_damage_the_answer(site: FakeSite) -> None:
    noise = "import os; print('{}'); os.write(1, b'noise' * 100000); os.write(2, b'noise' * 100000)"
    site.add_backend("npu", probing(noise))
    assert doctor(site, "npu", code=0)["backend:npu"]["state"] == "ready"


def test_denied_incompatible_and_duplicate_are_told_without_an_import(site: FakeSite) -> None:
    site.add_backend("denied")
    site.add("acme-new", entries={"backend.v2:new": "acme_new"})
    site.add_backend("twin", dist="twin-a")
    site.add_backend("twin", dist="twin-b")
    environment = {"HARDPOINT_DENY": "backend:denied"}
    found = doctor(site, "denied", "new", "twin", **environment)
    assert found["backend:denied"]["state"] == "denied"
    assert found["backend:denied"]["reason"] == "policy denies backend:denied"
    assert found["backend:new"]["state"] == "incompatible"
    assert found["backend:twin"]["state"] == "broken"
    assert "twin-a 1.0 and twin-b 1.0" in found["backend:twin"]["reason"]
    assert site.imported() == set()


def test_a_minor_that_is_too_new_is_incompatible(site: FakeSite) -> None:
    site.add_backend("npu", PLUGIN.replace("(1, 0)", "(1, 7)"))
    found = doctor(site, "npu")["backend:npu"]
    assert found["state"] == "incompatible"
    assert "it requires contract 1.7" in found["reason"]


def test_policy_holds_in_the_subprocess_too(site: FakeSite, tmp_path: Path) -> None:
    site.add_backend("npu")
    lock = tmp_path / "empty.lock"
    lock.write_text('{"hardpoint-lock": 1, "providers": {}}')
    found = doctor(site, "npu", code=4, HARDPOINT_LOCK=str(lock))["backend:npu"]
    assert found["state"] == "broken"
    assert found["error"]["error"] == "LockMismatch"  # type: ignore[index]
    assert site.imported() == set()


def test_a_name_that_nothing_provides_gets_the_way_to_install_it(site: FakeSite) -> None:
    ran = site.cli("doctor", "backend:executorch")
    assert ran.returncode == 3
    assert "remedy: pip install hardpoint-executorch" in ran.stderr


def test_what_is_no_provider_name_is_a_usage_error(site: FakeSite) -> None:
    ran = site.cli("doctor", "openvino")
    assert ran.returncode == 2
    assert "is not KIND:NAME" in " ".join(ran.stderr.replace("│", " ").split())
