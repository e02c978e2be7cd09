"""Each check of backends, operators aside, fails a backend that has just that flaw."""

import pytest

from harness import Mutant, asked_for, judged

FAMILIES = ["convolutional", "encoder", "decoder", "mixture", "diffusion", "recurrent", "sentences"]


def calls(name, check, says):
    return Mutant(name.replace("_", "-"), f"mutants_backend_calls:{name}", check, says)


def models(name, check, says):
    return Mutant(name.replace("_", "-"), f"mutants_backend_models:{name}", check, says)


def life(name, check, says):
    return Mutant(name.replace("_", "-"), f"mutants_backend_life:{name}", check, says)


MUTANTS = [
    calls("freezes_rows", "sizes_that_change", "with 7 rows, captured with 3"),
    calls("ignores_strides", "inputs_of_any_strides", "with a transposed input of strides (1, 6)"),
    calls("flattens_empty", "empty_tensors", "is float32[0], the program says float32[0, 8]"),
    calls("has_no_scalars", "tensors_without_dimensions", "is float32[1], the program says float32[]"),
    calls("counts_in_floats", "large_tensors", "is 0.0 and must be"),
    calls("drops_nan", "nan_and_infinity", "is 0.0 and must be nan"),
    calls("clamps", "nan_and_infinity", "e+38 and must be -inf"),
    calls("integers_as_floats", "integers", "'x + y' of 64-bit integers"),
    calls("booleans_as_bytes", "booleans", "is uint8[2, 8], the program says bool[2, 8]"),
    calls("writes_to_inputs", "inputs_stay_unchanged", "must not write to its inputs"),
    calls("returns_inputs", "results_have_their_own_memory", "lies in the memory of input 0"),
    calls("shares_results", "results_have_their_own_memory", "in the memory of the result of"),
    calls("reuses_buffers", "results_outlive_the_next_call", "stay valid after the next call"),
    calls("brings_to_one_buffer", "results_outlive_the_next_call", "brought to the CPU by to_cpu()"),
    calls("knows_by_address", "one_tensor_passed_twice", "with one tensor as both inputs"),
    calls("reverses", "several_results", "with several results"),
    calls("shares_among_threads", "eight_threads_at_once", "called by eight threads at once"),
    calls("obeys_autocast", "modes_of_the_caller", "under the caller's autocast"),
    calls("chooses_bfloat16", "facts_are_true", "computes in bf16 on chooses-bfloat16, not in fp32"),
    calls("says_anything", "facts_are_true", "TypeError: Object of type device is not JSON"),
    calls("changes_at_its_first_call", "facts_are_true", "precision None before the first call"),
    models("wrong_convolution", "model_convolutional", "gives wrong numbers"),
    models("wrong_encoder", "model_encoder", "gives wrong numbers"),
    models("frozen_state", "model_decoder", "call 1 of 6"),
    models("wrong_mixture", "model_mixture", "gives wrong numbers"),
    models("wrong_diffusion", "model_diffusion", "gives wrong numbers"),
    models("wrong_recurrent", "model_recurrent", "gives wrong numbers"),
    models("wrong_sentences", "model_sentences", "gives wrong numbers"),
    *(models("wrong_in_pieces", f"parts_of_{name}", "gives wrong numbers") for name in FAMILIES),
    models("changes_its_mind", "answers_for_every_node", "support() answers differently"),
    models("gives_no_reason", "answers_for_every_node", "without a reason"),
    models("forgets_nodes", "answers_for_every_node", "it says nothing about"),
    models("rewrites_programs", "answers_for_every_node", "support() changes the program"),
    models("compiles_no_singles", "claimed_nodes_run_alone", "is claimed, and alone it fails"),
    models("returns_elsewhere", "results_are_on_its_device", "on meta, the declared device is cpu"),
    models("silent_fallback", "no_silent_cpu_fallback", "a silent fallback"),
    life("keeps_it_in_the_process", "works_in_a_new_process", "KeyError"),
    life("pickles", "artifacts_are_plain_data", "file 'weights.bin' of the artifact is a pickle"),
    life("names_by_chance", "compiles_the_same_again", "compiled twice, gives files"),
    life("empties_artifacts", "saved_again_and_again", "saved twice, loaded and saved again"),
    life("takes_any_format", "refuses_other_formats", "is taken as if it were its own"),
    life("raises_anything", "refuses_other_formats", "asks for an ArtifactError"),
    life("takes_any_device", "refuses_other_devices", "is taken as if it were its own"),
    life("ignores_options", "refuses_unknown_options", "in silence"),
    life("computes_in_another", "refuses_undeclared_precisions", "gives an artifact"),
    life("crashes_on_damage", "damaged_artifacts", "ends the process: killed by SIGABRT"),
    life("trusts_files", "damaged_artifacts", "load() raised IndexError"),
    life("leaks", "a_thousand_calls", "bytes a call: it leaks"),
    life("leaves_files_open", "loaded_fifty_times", "50 more open files"),
    life("leaves_threads", "loaded_fifty_times", "50 more threads"),
    life("closes_once", "closed_twice", "RuntimeError: handle 0x0 is not valid"),
    life("frees_memory_in_use", "closed_twice", "a call after close() gives numbers that are wrong"),
    life("crashes_in_a_fork", "forked_after_load", "ends in its first call, status -6"),
    life("hangs_in_a_fork", "forked_after_load", "hangs in its first call"),
    life("needs_to_be_asked_first", "compiled_in_isolation", "no session is open"),
]  # fmt: skip


@pytest.mark.parametrize("mutant", asked_for(MUTANTS), ids=str)
def test_the_kit_kills_the_mutant(mutant):
    result = judged("backend", mutant)
    assert result.outcome == "failed", f"{mutant.name} survives: {result}"
    assert mutant.says in result.reason
