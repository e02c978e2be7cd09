"""A check that nothing fails proves nothing: each is killed by a broken provider, on purpose."""

import importlib
from pathlib import Path

import pytest

from hardpoint.interfaces.kinds import KINDS
from hardpoint.testing.suites import checks_of_kind

HERE = Path(__file__).parent
MUTANTS = [
    mutant
    for file in sorted(HERE.glob("test_mutants_*.py"))
    for mutant in importlib.import_module(file.stem).MUTANTS
]


@pytest.mark.parametrize("kind", KINDS)
def test_each_check_is_failed_by_a_broken_provider(kind):
    killed = {mutant.kills for mutant in MUTANTS}
    assert not [check.name for check in checks_of_kind(kind) if check.name not in killed]


def test_each_mutant_is_killed_by_a_check_that_exists():
    known = {check.name for kind in KINDS for check in checks_of_kind(kind)}
    assert not [str(mutant) for mutant in MUTANTS if mutant.kills not in known]


def test_names_of_mutants_are_unique():
    names = [str(mutant) for mutant in MUTANTS]
    assert len(names) == len(set(names))
