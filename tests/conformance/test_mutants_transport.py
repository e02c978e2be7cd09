"""Each check of transports fails one that has just that flaw, and says what it is."""

import os
import tempfile
from pathlib import Path

import pytest

from hardpoint.testing.check import LEVELS
from hardpoint.testing.every import EveryKind
from hardpoint.testing.subject import Subject
from hardpoint.testing.suites import checks_of_kind
from hardpoint.testing.transport.launcher import Launcher
from hardpoint.testing.transport.traces import processes_of, shared_memory
from harness import Mutant, asked_for, judged, run_checks


def mutant(name, check, says, module="mutants_transport"):
    return Mutant(name, f"{module}:{name}", check, says)


def faulty(name, check, says):
    return mutant(name, check, says, "mutants_transport_faults")


MUTANTS = [
    mutant("misspelt", "declares_what_pytorch_knows", "did you mean 'all_reduce'?"),
    mutant("no_such_dtype", "declares_what_pytorch_knows", "info.dtypes names 'half_float'"),
    mutant("no_such_reduction", "declares_what_pytorch_knows", "info.reductions names 'MEDIAN'"),
    mutant("no_such_device", "declares_what_pytorch_knows", "info.devices names 'ncpu'"),
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
    mutant("dies_of_nothing", "sizes_zero_and_uneven", "killed by SIGABRT in broadcast("),
    mutant("deadlocks_on_unequal", "sizes_zero_and_uneven", "all_to_all_single("),
    mutant("reduces_the_first_megabytes", "large_tensors_are_right", "element 4194304 of 16777216"),
    mutant(
        "ignores_strides", "strided_tensors_are_right_or_refused", "not contiguous): the tensor"
    ),
    mutant(
        "refuses_on_one_rank", "strided_tensors_are_right_or_refused", "not every rank refuses it"
    ),
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
    # By its ranks, or when they have ended: what other programs remove meanwhile hides it before.
    faulty("leaks_shared_memory", "groups_leave_nothing_behind", "/dev/shm/acme-mutant-"),
    faulty("leaks_a_process", "groups_leave_nothing_behind", "leave processes"),
    faulty("leaves_a_daemon", "groups_leave_nothing_behind", "a process runs on"),
    faulty("hoards", "memory_does_not_grow", "MiB more in this process"),
]


@pytest.fixture(autouse=True)
def no_shared_memory_is_left(request):
    """What a mutant leaves there on purpose; after its own test: others run at the same time."""
    yield
    if "leaks_shared_memory" in request.node.name:
        for file in Path("/dev/shm").glob("acme-mutant-leaked-*"):
            file.unlink()


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("transport", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason


@pytest.mark.slow
def test_a_correct_group_in_python_passes_every_check():
    own = [check.name for check in checks_of_kind("transport") if not _is_shared(check.name)]
    found = run_checks("transport:refuses_strides", "mutants_transport:refuses_strides", own)
    assert {name: r.reason for name, r in found.items() if r.outcome != "passed"} == {}
    assert {result.level for result in found.values()} == set(LEVELS["transport"])
    assert len(found["strided_tensors_are_right_or_refused"].figures["refused"]) >= 10


def _is_shared(name):
    return hasattr(EveryKind, f"test_{name}")


def test_a_transport_whose_devices_are_not_here_is_skipped_with_the_reason():
    checks = ["collectives_are_right", "a_killed_rank_is_an_error"]
    found = run_checks("transport:far_away", "mutants_transport:far_away", checks)
    assert {(r.outcome, r.reason) for r in found.values()} == {
        ("skipped", "none of its devices (maia, hpu) is on this machine")
    }


@pytest.fixture
def launcher():
    launcher = Launcher(Subject("transport", "gloo"))
    yield launcher
    launcher.close()


def test_ranks_that_hang_are_ended_and_say_where_they_were(launcher):
    run = launcher.run("groups:absent", 2, seconds=3, timeout=60, slack=1)
    problems = sorted(run.problems())
    assert problems[0].startswith(
        "rank 0 of 2: no end within 3 s in hardpoint.init_process_group; File "
    )
    assert "transport.py" in problems[0], problems[0]
    assert problems[1].startswith("rank 1 of 2: no end within 3 s; File ")
    assert "in await_flag" in problems[1]
    assert run.remains() == []


def test_a_launcher_leaves_no_process_behind(launcher):
    before = set(processes_of(os.getpid()))
    assert launcher.run("works:futures", 2).judge().remains() == []
    assert set(processes_of(os.getpid())) - before
    launcher.close()
    assert set(processes_of(os.getpid())) <= before


def test_each_rank_needs_an_accelerator_of_its_own(launcher):
    launcher.__dict__["_place"] = ("cuda", 2)  # as if two were found
    assert launcher.worlds(1, 2, 3) == [1, 2]
    with pytest.raises(pytest.skip.Exception) as skipped:
        launcher.worlds(3, 4)
    assert skipped.value.msg == "3 ranks need a cuda device each; there are 2"


def test_only_a_file_nobody_uses_is_shared_memory_that_was_left():
    place = Path("/dev/shm")
    left, in_use = (place / f"acme-mutant-{which}-{os.getpid()}" for which in ("left", "in-use"))
    left.touch()
    try:
        with in_use.open("w"), tempfile.TemporaryDirectory(dir=place) as folder:
            Path(folder, "file").touch()
            found = shared_memory()
    finally:
        left.unlink()
        in_use.unlink()
    assert str(left) in found
    assert str(in_use) not in found
    assert folder not in found, "another program's folder for temporary files"
