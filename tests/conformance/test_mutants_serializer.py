"""Each check of serializers fails one that has just that flaw, and says what it is."""

from pathlib import Path

import pytest

from harness import Mutant, asked_for, judged, run_checks

_PLUGIN = Path(__file__).parents[2] / "plugins" / "safetensors" / "tests"
_GOLDEN = f'golden = "{_PLUGIN / "golden"}"'
_HOSTILE = f'hostile = "{_PLUGIN / "hostile"}"'


def mutant(where, check, says, *, module="", setting=""):
    name = where
    settings = f'["serializer:{name}"]\n{setting}\n' if setting else ""
    return Mutant(name, f"mutants_serializer{module}:{where}", check, says, settings)


def reading(where, check, says, **more):
    return mutant(where, check, says, module="_reading", **more)


def lifetime(where, check, says, **more):
    return mutant(where, check, says, module="_lifetime", **more)


def hostile(where, check, says, **more):
    return mutant(where, check, says, module="_hostile", **more)


def saving(where, check, says, **more):
    return mutant(where, check, says, module="_saving", **more)


MUTANTS = [
    mutant("widens_bfloat16", "every_dtype_round_trips", "came back as float32"),
    mutant("refuses_without_name", "every_dtype_round_trips", "without naming the tensor"),
    mutant("refuses_raw", "every_dtype_round_trips", "raised KeyError"),
    mutant("loses_nan_payloads", "every_dtype_round_trips", "came back as float32"),
    mutant("makes_scalars_vectors", "every_shape_round_trips", "came back as float32[1]"),
    mutant("ignores_strides", "any_layout_is_saved_as_it_looks", "a tensor that is transposed"),
    mutant("cuts_names", "any_name_round_trips", "whose name is long"),
    mutant("splits_large", "a_large_file_round_trips", "1001 tensors saved, 1000 read"),
    mutant("drops_metadata", "metadata_round_trips", "has no such key"),
    lifetime("forgets_old_files", "golden_files_stay_readable", "is refused", setting=_GOLDEN),
    lifetime("other_endian", "golden_files_stay_readable", "sha256 of", setting=_GOLDEN),
    reading("raises_on_get", "a_reader_is_a_mapping_of_facts", "a Mapping raises KeyError"),
    reading("lies_about_dtype", "a_reader_is_a_mapping_of_facts", "dtype is '"),
    reading("list_shapes", "a_reader_is_a_mapping_of_facts", "shape is ["),
    reading("numbered_metadata", "a_reader_is_a_mapping_of_facts", "not text"),
    reading("numbered_metadata", "metadata_round_trips", "both sides must be text"),
    reading("unhelpful", "a_missing_tensor_is_an_error_that_helps", "offer the nearest name"),
    reading("missing_is_key_error", "a_missing_tensor_is_an_error_that_helps", "KeyError"),
    reading("closes_once", "a_reader_can_be_closed_twice", "close() raised ValueError"),
    reading("any_device", "tensors_come_on_the_device_asked_for", "there is no such device"),
    reading("by_suffix", "recognizes_its_own_files", "called 'no-suffix'"),
    reading("recognizes_json", "recognizes_nothing_else", "JSON: is taken for a file"),
    reading("recognizes_loudly", "recognizes_nothing_else", "raises IndexError"),
    reading("recognizes_missing", "recognizes_no_folder_pipe_or_missing_file", "a missing file"),
    reading(
        "recognizes_pipes",
        "recognizes_no_folder_pipe_or_missing_file",
        "pipe that nobody writes to: hangs",
    ),
    reading("steps_are_one", "slices_equal_the_whole", "slice("),
    reading("clamps", "an_index_outside_the_tensor_is_an_error", "that is outside the tensor"),
    reading("raw_index_error", "an_index_outside_the_tensor_is_an_error", "raised IndexError"),
    reading("reads_all", "a_slice_takes_no_more_memory_than_it_needs", "reads the whole tensor"),
    lifetime("unmaps", "tensors_outlive_the_reader", "killed by SIGSEGV"),
    lifetime("writes_through", "writing_to_a_tensor_leaves_the_file_alone", "was set to zero, and"),
    lifetime("leaks_descriptors", "nothing_stays_open", "more descriptors are open"),
    lifetime("leaks_threads", "nothing_stays_open", "more threads run"),
    lifetime("one_reader", "readers_in_threads_do_not_disturb_each_other", "threads read one file"),
    hostile("fills_up", "files_cut_short_are_refused", "opens, as a file of"),
    hostile("ignores_the_rest", "bytes_after_the_end_are_refused", "one blank: opens"),
    hostile("parses_first", "flipped_bits_do_no_harm", "DecodeError"),
    hostile("jumps", "flipped_bits_do_no_harm", "SIGSEGV"),
    hostile("allocates", "giant_numbers_do_no_harm", "it believes a number in it"),
    hostile("counts", "giant_numbers_do_no_harm", "hangs: no answer"),
    hostile("empty_is_nothing", "what_is_another_format_is_refused", "an empty file: opens"),
    hostile("parses_first", "hostile_text_is_refused", "raises RecursionError"),
    hostile("last_key_wins", "hostile_text_is_refused", "every key twice: opens"),
    hostile("echoes", "hostile_text_is_refused", "escape them"),
    hostile("waits", "what_is_no_file_is_refused", "pipe that nobody writes to: hangs"),
    hostile("not_found", "what_is_no_file_is_refused", "raises FileNotFoundError"),
    hostile(
        "last_key_wins", "the_vendors_hostile_files_are_refused", "duplicate", setting=_HOSTILE
    ),
    hostile("tries_pickle", "nothing_in_a_file_is_executed", "unpickling looked up"),
    hostile("evaluates", "nothing_in_a_file_is_executed", "exec or eval of code from '<string>'"),
    saving(
        "saves_meta_as_zeros", "what_is_no_plain_tensor_is_refused_by_name", "on the meta device"
    ),
    saving("nameless", "what_is_no_plain_tensor_is_refused_by_name", "without its name"),
    saving("says_it_only_reads", "one_that_only_reads_says_so", "save() returned", setting=_GOLDEN),
    saving("in_place", "a_failed_save_leaves_the_old_file", "save atomically"),
    saving("raw_errors", "a_failed_save_leaves_the_old_file", "raised FileNotFoundError"),
    saving("forgets_to_tidy", "a_failed_save_leaves_the_old_file", "lock is left behind"),
    saving("in_place", "a_killed_save_leaves_a_whole_file", "the file that was there is lost"),
    saving("renames_early", "a_killed_save_leaves_a_whole_file", "the file that was there is lost"),
    saving("never_sweeps", "a_killed_save_leaves_a_whole_file", "sweep what dead writers left"),
    saving("in_place", "a_file_can_be_saved_over_itself", "SIGBUS"),
    saving(
        "unlinks_first",
        "readers_see_a_whole_file_while_it_is_replaced",
        "a reader got WeightsError",
    ),
    saving("stamps_time", "saving_twice_gives_the_same_bytes", "three saves"),
    saving("lists_a_set", "saving_twice_gives_the_same_bytes", "PYTHONHASHSEED"),
    saving("private", "a_new_file_has_the_usual_permissions", "has mode 600"),
]


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("serializer", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason


def test_a_correct_one_that_only_reads_is_checked_on_its_golden_files():
    here = [
        "golden_files_stay_readable",
        "one_that_only_reads_says_so",
        "a_reader_is_a_mapping_of_facts",
        "slices_equal_the_whole",
        "recognizes_its_own_files",
        "tensors_outlive_the_reader",
        "files_cut_short_are_refused",
        "hostile_text_is_refused",
        "nothing_in_a_file_is_executed",
        "nothing_stays_open",
    ]
    saving = ["every_dtype_round_trips", "a_killed_save_leaves_a_whole_file"]
    found = run_checks(
        "serializer:reads_only",
        "mutants_serializer_saving:reads_only",
        here + saving,
        settings=f'["serializer:reads_only"]\n{_GOLDEN}\n',
    )
    assert {name: found[name].reason for name in here if found[name].outcome != "passed"} == {}
    for name in saving:
        assert found[name].reason == "it declares can_save=False: it only reads"


def test_one_that_only_reads_and_has_no_golden_files_is_told_how_to_be_checked():
    checks = ["files_cut_short_are_refused"]
    found = run_checks("serializer:reads_only", "mutants_serializer_saving:reads_only", checks)
    assert found[checks[0]].outcome == "skipped"
    assert "point `golden` in conformance.toml" in found[checks[0]].reason
