"""What is measured on: examples at any batch, eager's results, and how far others are from them."""

import math

import pytest
import torch
from torch import nn

import hardpoint as hp
from hardpoint.measuring import processors
from hardpoint.measuring.agreement import errors, looks_like_logits
from hardpoint.measuring.builder import failure_of
from hardpoint.measuring.candidate import Candidate, from_json
from hardpoint.measuring.inputs import read_inputs, write_inputs
from hardpoint.measuring.limits import Limits
from hardpoint.measuring.processors import choose, usable
from hardpoint.measuring.results import Errors, Failure, errors_from_json
from hardpoint.measuring.session import judge
from hardpoint.measuring.workload import make_inputs, read_program_file, write_program_file


class Pair(nn.Module):
    def forward(self, x, mask, scale):
        return (x * mask).sum(0) * scale, x + 1


@pytest.fixture(scope="module")
def program():
    args = (torch.arange(6.0).reshape(2, 3), torch.ones(2, 3), torch.tensor(2.0))
    return hp.capture(Pair().eval(), args, dynamic={"x": {0: "batch"}, "mask": {0: "batch"}})


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_examples_are_repeated_or_cut_to_a_batch(program, batch):
    made = make_inputs(program, batch)
    x, mask, scale = made.inputs
    rows = torch.arange(6.0).reshape(2, 3)[torch.arange(batch) % 2]
    assert torch.equal(x, rows)
    assert mask.shape == (batch, 3)
    assert made.samples == batch
    assert torch.equal(made.expected[0], rows.sum(0) * scale)
    assert torch.equal(made.expected[1], rows + 1)


def test_a_fixed_batch_is_an_error_that_says_how_to_capture():
    fixed = hp.capture(nn.Linear(3, 2).eval(), (torch.randn(2, 3),))
    with pytest.raises(hp.InputError) as caught:
        make_inputs(fixed, 8)
    assert str(caught.value) == (
        "Linear cannot be run at batch 8\n"
        "  cause: input: float32[2, 3] has a fixed first size\n"
        "  remedy: capture it with that size dynamic: dynamic={'x': {0: 'batch'}}, or on the "
        "command line --dynamic x.0=batch"
    )


def test_a_batch_out_of_range_is_an_error_that_gives_the_range():
    batch = torch.export.Dim("batch", min=2, max=4)
    bounded = hp.capture(nn.Linear(3, 2).eval(), (torch.randn(2, 3),), dynamic=({0: batch},))
    with pytest.raises(hp.InputError, match=r"at batch 9\n  cause: batch must be at least 2 and at most 4"):  # fmt: skip
        make_inputs(bounded, 9)


def test_program_and_inputs_come_back_from_their_files_as_they_were(program, tmp_path):
    write_program_file(program, tmp_path / "p.pt2")
    write_inputs(tmp_path / "i.pt2", make_inputs(program, 3))
    again = read_program_file(tmp_path / "p.pt2")
    assert again.signature == program.signature
    assert again.name == program.name
    inputs = read_inputs(tmp_path / "i.pt2")
    assert torch.equal(make_inputs(again, 3).expected[0], inputs.expected[0])
    assert inputs.names == tuple(spec.name for spec in program.signature.results)


def test_a_program_that_draws_random_numbers_has_nothing_to_compare_with():
    class Noise(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    drawing = hp.capture(Noise().eval(), (torch.randn(4, 4),))
    assert make_inputs(drawing).expected == ()


def test_top_1_agreement_is_of_logits_alone():
    right, wrong = torch.eye(4), torch.eye(4).roll(1, 0)
    found = errors([torch.cat([right[:3], wrong[3:]])], [right], ["output"])
    assert (found.agreement, found.samples) == (0.75, 4)
    assert errors([right, right], [right, right], ["hidden", "pooled"]).agreement is None
    assert errors([right, right], [right, right], ["out.logits", "pooled"]).agreement == 1.0
    assert not looks_like_logits(torch.zeros(4, 4, 4), "output", alone=True)
    assert not looks_like_logits(torch.zeros(4, 4, dtype=torch.int64), "logits", alone=True)


def test_what_is_not_finite_is_judged_and_written_down():
    found = errors([torch.tensor([math.nan])], [torch.ones(1)], ["y"])
    assert found.max == math.inf
    assert errors_from_json(found.to_json()) == found
    assert judge(found, 1e9).kind == "wrong"
    assert judge(None, 0.0) is None
    assert judge(Errors(0.01, 0.001, 1.0), 0.01) is None
    assert str(judge(Errors(0.02, 0.001, 0.9), 0.01)) == (
        "wrong in verification: error 0.02, at most 0.01 is allowed (mean 0.001, cosine 0.900000)"
    )


def test_what_is_within_the_limit_only_because_it_is_small_is_judged_too():
    found = errors([torch.zeros(4)], [torch.full((4,), 2e-5)], ["y"])
    assert judge(found, 1e-5).reason.startswith("error 2e-05, at most 1e-05 is allowed")
    assert str(judge(found, 1e-4)) == (
        "wrong in verification: error 2e-05 is within 0.0001, which is absolute below 1, but it is "
        "100% of the greatest value of a result that is itself that small (cosine 0.000000)"
    )
    nearly = errors([torch.full((4,), 1.9e-5)], [torch.full((4,), 2e-5)], ["y"])
    assert judge(nearly, 1e-4) is None


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MemoryError("none"), "memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory"),
        (hp.CompileError("no", cause="MemoryError: not a byte"), "memory"),
        (hp.OutOfMemory("the tile store is full"), "memory"),
        (raised_from(hp.CompileError("no"), torch.OutOfMemoryError("HIP")), "memory"),
        (hp.DeviceLost("it fell off the bus"), "crashed"),
        (raised_from(hp.CompileError("no"), hp.DeviceLost("gone")), "crashed"),
        (hp.VerificationError("computes in bf16"), "wrong"),
        (hp.CompileError("no adders"), "refused"),
        (ValueError("odd"), "raised"),
    ],
)
def test_each_exception_is_a_kind_of_failure(error, kind):
    assert failure_of(error)[0] == kind


def test_a_failure_reads_as_a_sentence():
    assert str(Failure("hung", "compiling s0 for npu", "no answer within 3 s")) == (
        "hung in compiling s0 for npu: no answer within 3 s"
    )
    assert str(Failure("refused", "compiling s0 for npu", "no adders")) == "no adders"


def test_a_candidate_has_a_name_for_people_and_a_key_for_the_database():
    targets = (hp.Target("npu"), hp.Target("cpu"))
    mixed = Candidate(targets, {"npu": "fp16", "cpu": "fp32"}, "", {"npu": {"fast": True}}, "cost")
    assert mixed.label == "npu + cpu fp16 + fp32 by cost"
    assert from_json(mixed.to_json()).key == mixed.key
    plain = Candidate((hp.Target("npu", "1"),), {"npu": "fp16"}, "streams")
    assert plain.label == "npu:1 fp16 streams"


def test_throughput_has_a_caller_for_each_core_that_is_computed_on(monkeypatch):
    monkeypatch.setattr(processors, "cores", lambda: 8)
    assert processors.callers("latency", 4) == 1
    assert processors.callers("throughput", 1) == 1
    assert processors.callers("throughput", 4) == 4
    assert processors.callers("throughput", 16) == 8


@pytest.mark.parametrize("name", ["build_seconds", "load_seconds", "memory_bytes"])
@pytest.mark.parametrize("value", [0, -1.0, math.nan])
def test_a_limit_that_never_ends_anything_is_refused(name, value):
    with pytest.raises(hp.ConfigError, match=f"a limit's {name} is {value}"):
        Limits(**{name: value})


def test_as_many_processors_as_threads_are_used():
    mine = usable()
    assert choose(len(mine)) == []
    assert choose(len(mine) + 1) == []
    if len(mine) > 1:
        [one] = choose(1)
        assert one in mine
