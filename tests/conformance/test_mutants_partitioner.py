"""Each check of partitioners fails one that has just that flaw, and says what it is."""

import pytest

from harness import Mutant, asked_for, judged, run_checks

_MODULE = "mutants_partitioner"


def mutant(where, check, says, module=""):
    return Mutant(where, f"{_MODULE}{module}:{where}", check, says)


MUTANTS = [
    mutant("forgets_one", "every_assignment_is_valid", "it leaves out"),
    mutant("assigns_inputs", "every_assignment_is_valid", "no compute nodes"),
    mutant("ignores_support", "every_assignment_is_valid", "which cannot run it"),
    mutant("invents_a_target", "every_assignment_is_valid", "to tpu, which is no candidate"),
    mutant("returns_a_dict", "every_assignment_is_valid", "it returned dict, not Assignment"),
    mutant("breaks", "every_assignment_is_valid", "it raised KeyError"),
    mutant("explains_inputs", "reasons_are_words_about_its_nodes", "reasons for ['p_weight']"),
    mutant("explains_nothing", "reasons_are_words_about_its_nodes", "is ''"),
    mutant("annotates", "the_program_is_left_as_it_was", "the program is not as it was"),
    mutant("sorts_targets", "the_program_is_left_as_it_was", "list of targets is not as it was"),
    mutant("never_refuses", "what_nobody_supports_is_an_error_with_its_name", "it gave Assignment"),
    mutant("refuses_namelessly", "what_nobody_supports_is_an_error_with_its_name", "none of them"),
    mutant("refuses_raw", "what_nobody_supports_is_an_error_with_its_name", "raised StopIteration"),
    mutant("draws", "the_same_question_has_the_same_answer", "it answers otherwise"),
    mutant("remembers", "the_same_question_has_the_same_answer", "it answers otherwise"),
    mutant("by_hash", "another_process_gives_the_same_answer", "PYTHONHASHSEED"),
    mutant("ignores_memory", "memory_limits_are_kept", "bytes of weights, and has"),
    mutant("counts_twice", "a_weight_is_counted_once", "there is an assignment"),
    mutant("ignores_memory", "too_little_memory_is_an_error_with_figures", "it gave Assignment"),
    mutant("refuses_namelessly", "too_little_memory_is_an_error_with_figures", "does not say"),
    mutant("rewrites", "its_plans_run_and_are_right", "is not what the model computes"),
    mutant("latency_only", "every_declared_objective_is_accepted", "for throughput", "_costs"),
    mutant("declares_the_unknown", "every_declared_objective_is_accepted", "names ['beauty']", "_costs"),
    mutant("declares_too_little", "an_objective_that_it_does_not_declare_is_refused", "answers for", "_costs"),
    mutant("needs_costs", "absent_costs_are_no_obstacle", "it raised TypeError", "_costs"),
    mutant("claims_costs", "it_is_never_worse_than_one_target", "all on one target", "_costs"),
    mutant("forgets_transfers", "it_is_never_worse_than_one_target", "with slow links", "_costs"),
    mutant("recursive", "five_thousand_nodes_take_bounded_time", "RecursionError", "_large"),
    mutant("spins", "five_thousand_nodes_take_bounded_time", "more than 1 s each", "_large"),
    mutant("hoards", "five_thousand_nodes_take_bounded_time", "GB of memory", "_large"),
]  # fmt: skip


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("partitioner", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason


def test_a_correct_one_that_uses_costs_passes():
    checks = [
        "every_assignment_is_valid",
        "the_same_question_has_the_same_answer",
        "memory_limits_are_kept",
        "absent_costs_are_no_obstacle",
        "every_declared_objective_is_accepted",
        "it_is_never_worse_than_one_target",
    ]
    found = run_checks("partitioner:cheapest", f"{_MODULE}:cheapest", checks)
    assert {result.outcome for result in found.values()} == {"passed"}, found
    figures = found["it_is_never_worse_than_one_target"].figures
    ratios = figures["best ratio to one target"]
    assert ratios["latency, fast links"] < 1  # it wins where there is something to win
