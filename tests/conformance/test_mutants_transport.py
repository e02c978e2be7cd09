"""Each check of transports fails one that has just that flaw, and says what it is."""

from pathlib import Path

import pytest

from harness import Mutant, kills, run_checks
from hardpoint.testing.suites import checks_of_kind


def mutant(name, check, says, module="mutants_transport"):
    return Mutant(name, f"{module}:{name}", check, says)


def faulty(name, check, says):
    return mutant(name, check, says, "mutants_transport_faults")


MUTANTS = [
    mutant("misspelt", "declares_what_pytorch_knows", "did you mean 'all_reduce'?"),
    mutant("no_such_dtype", "declares_what_pytorch_knows", "info.dtypes names 'half_float'"),
    mutant("no_such_reduction", "declares_what_pytorch_knows", "info.reductions names 'MEDIAN'"),
    mutant("moves_nothing", "declares_what_pytorch_knows", "info.collectives is empty"),
    mutant("mute", "every_entrance_works", "name not set"),
    mutant("once", "groups_can_be_made_again", "initialised already"),
    mutant("does_nothing_in_subgroups", "subgroups_are_apart", "in new_group([0, 2]"),
    mutant("shares_a_scratch", "groups_work_at_once", "with four groups busy"),
    mutant("impatient", "a_rank_that_never_comes_is_an_error", "one of its ranks never came"),
    mutant("broadcasts_from_zero", "collectives_are_right", "the tensor from root 1"),
    mutant("keeps_no_input", "collectives_are_right", "the input: element"),
    mutant("alone_fails", "collectives_are_right", "a ring needs two ranks"),
    mutant("sums_for_max", "reductions_are_right", "all_reduce(MAX, float32"),
    mutant("reduces_bfloat16_as_integers", "reductions_are_right", "all_reduce(SUM, bfloat16"),
    mutant("claims_float8", "reductions_are_right", "all_reduce(SUM, float8_e5m2"),
    mutant("carries_doubles_as_floats", "dtypes_are_moved_bit_for_bit", "broadcast(float64"),
    mutant("dies_of_nothing", "sizes_zero_and_uneven", "0 elements each"),
    mutant("deadlocks_on_unequal", "sizes_zero_and_uneven", "all_to_all_single("),
    mutant("reduces_the_first_megabytes", "large_tensors_are_right", "element 4194304 of 16777216"),
    mutant(
        "ignores_strides", "strided_tensors_are_right_or_refused", "not contiguous): the tensor"
    ),
    mutant("refuses_on_one_rank", "strided_tensors_are_right_or_refused", "RuntimeError"),
    mutant("shares_a_scratch", "work_may_be_in_flight", "all_reduce in flight, number"),
    mutant("says_it_is_complete", "work_is_not_complete_before_it_is", "has not called it yet"),
    mutant("waits_for_nothing", "work_is_not_complete_before_it_is", "before the all_reduce was"),
    mutant("has_no_future", "work_has_a_future", "get_future"),
    mutant("future_of_the_input", "work_has_a_future", "gives no reduced tensor"),
    mutant("barrier_is_open", "barrier_holds_everyone", "barrier() let this rank go before rank"),
    mutant("receives_aside", "messages_arrive_in_order", "(100000 elements): element"),
    mutant("ignores_tags", "tags_and_any_source_are_right_or_refused", "recv(tag=6)"),
    mutant("cuts_bytes", "objects_travel", "in all_gather_object"),
    mutant("forgets_large_reductions", "ddp_trains", "DistributedDataParallel: parameter"),
    mutant("scatters_what_it_has", "fsdp2_trains", "fully_shard: parameter"),
    mutant("forgets_to_reduce", "tensor_parallel_trains", "tensor parallel: parameter"),
    mutant("receives_nothing", "pipelining_trains", "pipelining: the gradient of"),
    faulty("goes_on", "a_silent_rank_is_an_error", "all_reduce ended without an error"),
    faulty("takes_its_time", "a_silent_rank_is_an_error", "gave its error after"),
    faulty("goes_on", "a_killed_rank_is_an_error", "goes on without an error"),
    faulty("goes_on", "a_stopped_rank_is_an_error", "goes on without an error"),
    faulty("leaks_a_thread", "groups_leave_nothing_behind", "leave threads"),
    faulty("leaks_a_descriptor", "groups_leave_nothing_behind", "leave open descriptors"),
    faulty("leaks_a_file", "groups_leave_nothing_behind", "leave temporary files"),
    faulty("leaks_shared_memory", "groups_leave_nothing_behind", "leave shared memory"),
    faulty("leaks_a_process", "groups_leave_nothing_behind", "leave processes"),
    faulty("leaves_a_daemon", "groups_leave_nothing_behind", "a process runs on"),
    faulty("hoards", "memory_does_not_grow", "MiB more in this process"),
]


@pytest.fixture(autouse=True)
def no_shared_memory_is_left():
    """What a mutant leaves there on purpose."""
    yield
    for file in Path("/dev/shm").glob("acme-mutant-*"):
        file.unlink()


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_the_kit_kills_the_mutant(mutant):
    kills("transport", mutant)
