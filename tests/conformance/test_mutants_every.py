"""Each check that all kinds share fails a provider that has just that flaw."""

import pytest

from harness import Mutant, kills

MUTANTS = [
    Mutant("no_summary", "mutants_every:no_summary", "declares_what_it_is", "summary is empty"),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_kit_kills_the_mutant(mutant):
    kills("backend", mutant)
