"""Each check of a backend's operators fails a backend that is wrong in one operator only."""

import pytest

from harness import Mutant, asked_for, judged, run_checks

RELU = ("--operators", "relu/float32", "--workers", "1")
SECONDS = ("--operator-seconds", "2")
RIGHT, COMPILE, CLAIMS = "operators_are_right", "claimed_operators_compile", "claims_some_operator"
STALE = '["backend:stale"."expected-failures"]\n"operator:relu" = "the firmware (bug 12)"\n'


def mutant(name, check, says, options=RELU, settings=""):
    return Mutant(name, f"mutants_operators:{name}", check, says, settings, options)


MUTANTS = [
    mutant("wrong_relu", RIGHT, "nn.functional.relu float32: wrong: result 0: error"),
    mutant("coarse_in_bfloat16", RIGHT, "nn.functional.relu bfloat16: wrong", ("--operators", "relu/bfloat16", "--workers", "1")),
    mutant("drops_nan", RIGHT, "a number where eager PyTorch has NaN", ("--operators", "igamma/float32", "--workers", "1")),
    mutant("writes_into_inputs", RIGHT, "it changes its input 0"),
    mutant("raises_in_call", RIGHT, "raised: NotImplementedError: relu of this size"),
    mutant("crashes", RIGHT, "crashed: in call: killed by SIGABRT"),
    mutant("hangs", RIGHT, "hung: in call: no answer within 6 s", RELU + SECONDS),
    mutant("liar", COMPILE, "relu is not implemented in this version"),
    mutant("claims_nothing", CLAIMS, "it runs nothing"),
    Mutant("stale", "mutants_operators:correct", RIGHT, "operator:relu (right)", STALE, RELU),
]  # fmt: skip


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("backend", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason


def test_a_backend_without_the_flaw_passes_all_of_them():
    checks = [RIGHT, COMPILE, CLAIMS]
    options = ("--operators", "relu,igamma/float32", "--workers", "1")
    found = run_checks("backend:correct", "mutants_operators:correct", checks, options=options)
    assert {r.outcome for r in found.values()} == {"passed"}, found
    assert found[RIGHT].figures["operators"]["right"] == 5


def test_an_expected_failure_is_counted_and_does_not_fail_the_check():
    settings = '["backend:wrong_relu"."expected-failures"]\n"operator:relu" = "bug 12"\n'
    found = run_checks(
        "backend:wrong_relu", "mutants_operators:wrong_relu", [RIGHT], settings=settings, options=RELU
    )  # fmt: skip
    assert found[RIGHT].outcome == "passed", found
    (case,) = found[RIGHT].figures["operators"]["cases"]
    assert (case["state"], case["known"]) == ("wrong", "bug 12")
