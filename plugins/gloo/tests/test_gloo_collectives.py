"""Every collective on two real ranks, by both entrances: right by arithmetic, and as stock gloo."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "ranks" / "collectives.py"

ENTRANCES = {
    "hp": "hp.init_process_group('gloo')",
    "torch": "torch.distributed.init_process_group('hp_gloo')",
}

# What gloo itself cannot do; the same words must come through us.
REFUSED = {
    "all_gather_of_uneven_sizes": "invalid tensor size",
    "a_mistake_in_the_arguments": "invalid tensor size",
}


def case_names() -> list[str]:
    spec = importlib.util.spec_from_file_location("gloo_collectives_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return list(module.CASES)


CASES = case_names()


@pytest.fixture(scope="module")
def reports(
    launch_ranks: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    return [rank.report for rank in launch_ranks("collectives", tmp_path_factory.mktemp("c"))]


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("case", CASES)
def test_a_collective_is_right_and_as_stock_gloo(
    reports: list[Any], entrance: str, case: str
) -> None:
    for rank, report in enumerate(reports):
        verdict = report[entrance][case]
        assert verdict["error"] == verdict["stock_error"], f"rank {rank}"
        assert REFUSED.get(case, "") in verdict["error"]
        assert bool(verdict["error"]) == (case in REFUSED), verdict["error"]
        assert verdict["wrong"] == [], f"rank {rank}"
        assert verdict["unlike_stock"] == [], f"rank {rank}"
    if case not in {"barrier", *REFUSED}:
        assert sum(report[entrance][case]["checked"] for report in reports), "nothing was compared"


def test_both_entrances_ran_every_case(reports: list[Any]) -> None:
    for report in reports:
        for entrance in ENTRANCES:
            assert list(report[entrance]) == CASES


def test_every_collective_that_the_plugin_declares_has_a_case() -> None:
    from hardpoint_gloo import plugin

    declared = plugin.hardpoint_transport_info().collectives
    joined = " ".join(CASES)
    assert [name for name in declared if name not in joined] == []


def test_several_groups_work_at_once(reports: list[Any]) -> None:
    for report in reports:
        assert report["groups"] == {
            "at_once": True,
            "alone": True,
            "outsider": True,
            "backends": ["hp_gloo", "hp_gloo", "gloo"],
            "after_destroying_another": True,
        }


def test_pytorchs_debug_mode_finds_ranks_that_disagree(reports: list[Any]) -> None:
    for report in reports:
        assert report["debug"]["total"] == [2.0, 2.0]
        assert "Detected mismatch between collectives on ranks" in report["debug"]["mismatch"]
