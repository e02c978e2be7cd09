"""Ranks that disagree, stop or die: everyone else reads why, and nobody hangs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def ends(
    launch_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    return launch_ranks("mistakes", tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def reports(ends: list[Any]) -> list[Any]:
    return [rank.report for rank in ends]


def test_one_of_two_processes_that_claim_a_rank_is_told_who_has_it(reports: list[Any]) -> None:
    refused, waited = sorted((r["same_rank"] for r in reports), key=lambda m: "is taken" not in m)
    assert refused.startswith("rank 0 of 2 is taken\n  provider: transport:gloo (from hardpoint-")
    assert "claimed it in this store; this is process" in refused
    assert "no sign of rank 1 so far; first trouble elsewhere: rank 0 was claimed twice" in waited


def test_ranks_that_expect_different_world_sizes_are_told(reports: list[Any]) -> None:
    messages = [r["other_size"] for r in reports]
    told = [m for m in messages if "ranks, another rank expects" in m]
    waited = [m for m in messages if m not in told]
    assert len(told) == 1
    assert "remedy: start all ranks with the same world_size" in told[0]
    assert waited[0].startswith("gloo could not connect rank ")
    assert "first trouble elsewhere: rank " in waited[0]


def test_a_rank_that_cannot_listen_tells_the_others_why(reports: list[Any]) -> None:
    healthy, lame = (r["lame_rank"] for r in reports)
    assert lame.startswith("gloo cannot listen on network interface 'nope'\n")
    assert "remedy: set the option 'interface' or GLOO_SOCKET_IFNAME; this machine has " in lame
    assert healthy.startswith("gloo could not connect rank 0 of 2\n")
    assert "first trouble elsewhere: gloo cannot listen on network interface 'nope'" in healthy
    assert "with timeout= (now 3 s)" in healthy


def test_a_store_serves_one_group_after_another(reports: list[Any]) -> None:
    assert [r["again"] for r in reports] == ["2", "2"]


def test_a_stopped_rank_ends_a_collective_at_the_groups_own_timeout(reports: list[Any]) -> None:
    assert "Timed out waiting 3000ms" in reports[0]["stopped"]


def test_a_rank_killed_in_a_collective_ends_it_for_the_others(
    ends: list[Any], reports: list[Any]
) -> None:
    # The limit of that group is five minutes: what ends it is the death.
    assert ends[1].returncode == -9
    for moment in ("dead", "afterwards"):
        assert "Connection" in reports[0][moment]
        assert "Timed out" not in reports[0][moment]
    assert ends[0].returncode == 0


def test_torchrun_restarts_a_failed_job(tmp_path: Path) -> None:
    """Stock gloo mostly fails here: it reads the addresses of the first attempt's processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = Path(__file__).parent / "ranks" / "elastic.py"
    ended = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", "--max-restarts", "1", str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "rank0": "1 2",
        "rank1": "1 2",
    }
