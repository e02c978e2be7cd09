"""``hardpoint lock`` pins, and HARDPOINT_LOCK holds to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fakes.dists import FakeSite


@pytest.fixture
def site(tmp_path: Path) -> FakeSite:
    site = FakeSite(tmp_path / "site")
    site.add_backend("npu")
    return site


def test_it_writes_hardpoint_lock_here_and_says_how_to_use_it(site: FakeSite) -> None:
    ran = site.cli("lock")
    assert ran.returncode == 0, ran.stderr
    assert "backend:npu" in ran.stdout
    assert "in hardpoint.lock; HARDPOINT_LOCK=hardpoint.lock holds to it" in ran.stdout
    pinned = json.loads((site.root / "hardpoint.lock").read_text())["providers"]
    assert pinned["backend:npu"]["version"] == "1.0"


def test_what_is_locked_is_refused_after_a_change(site: FakeSite, tmp_path: Path) -> None:
    lock = str(tmp_path / "my.lock")
    listed = json.loads(site.cli("lock", "-o", lock, "--json").stdout)
    assert listed["lock"] == lock
    assert site.cli("doctor", "backend:npu", HARDPOINT_LOCK=lock).returncode == 0
    (site.root / "acme_npu.py").write_text("raise SystemExit\n")
    ran = site.cli("doctor", "backend:npu", HARDPOINT_LOCK=lock)
    assert ran.returncode == 4
    assert "acme_npu.py has another hash than RECORD lists" in ran.stdout


def test_an_existing_lock_does_not_stand_in_the_way_of_a_new_one(
    site: FakeSite, tmp_path: Path
) -> None:
    lock = tmp_path / "new.lock"
    assert site.cli("lock", HARDPOINT_LOCK=str(lock)).returncode == 0
    assert lock.exists()


def test_a_place_that_cannot_be_written_is_an_error(site: FakeSite, tmp_path: Path) -> None:
    ran = site.cli("lock", "-o", str(tmp_path / "no" / "such" / "folder"))
    assert ran.returncode == 1
    assert "cannot be written" in ran.stderr
