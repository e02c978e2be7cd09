"""Inputs that are held out: programs are verified on them, and nothing is calibrated with them."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import hardpoint as hp
from bench_rows import benchmark, row
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.benching.benchmark import benchmark_from_json
from hardpoint.choosing import identity
from hardpoint.compiler.whole import worse
from hardpoint.measuring.results import SAME_DATA
from hardpoint.measuring.workload import make_inputs, read_program_file, write_program_file
from hardpoint.numerics import Difference
from splitting import Scatter

needs_cpu = pytest.mark.skipif(
    "hardpoint-cpu" not in {d.metadata["Name"] for d in importlib.metadata.distributions()},
    reason="needs the cpu plugin",
)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(8, 4)

    def forward(self, x, scale):
        return self.layer(x) * scale["by"]


class Saturating(Executable):
    """Right for results of up to 4, as arithmetic is whose range was found on small examples."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, *inputs):
        return tuple(t.clamp(-4, 4) for t in self.inner(*inputs))


def arguments(times=1.0):
    return torch.linspace(-1, 1, 16).reshape(2, 8) * times, {"by": torch.tensor(2.0)}


@pytest.fixture(scope="module")
def program():
    return hp.capture(Two().eval(), arguments(), name="two")


@pytest.fixture
def registry():
    made = hp.Registry(path=[])
    made.add("backend", "a", Provider("a", spoil=Saturating))
    return made


def planned(program, registry):
    return hp.plan(program, targets="a", partitioner=Scatter(0, 1, 1), registry=registry)


def test_what_is_right_on_the_examples_alone_is_refused_on_check_inputs(program, registry):
    plan = planned(program, registry)
    hp.compile(plan, registry=registry).close()
    with pytest.raises(hp.VerificationError, match="gives wrong numbers") as raised:
        hp.compile(plan, registry=registry, check_inputs=arguments(10))
    assert raised.value.cause == (
        "on the examples that it was compiled with it is right; on check_inputs it is not"
    )


def test_the_greater_error_of_both_is_told(program, registry):
    x, scale = arguments(10)
    expected = Two()(x, scale)
    beyond = float((expected - expected.clamp(-4, 4)).abs().max() / expected.abs().max())
    model = hp.compile(
        planned(program, registry), registry=registry, max_error=1e9,
        check_inputs={"x": x, "scale": scale},
    )  # fmt: skip
    assert model.verification["held_out"] is True
    assert float(model.verification["max_error"]) >= beyond > 0.1
    assert model.verification["inputs"] == [[2, 8], []]  # of the examples, as they are recorded
    model.close()


def test_without_check_inputs_the_verification_says_so(program, registry):
    model = hp.compile(planned(program, registry), registry=registry)
    assert model.verification["held_out"] is False
    model.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (torch.ones(2, 8), "check_inputs is of type Tensor, it must be the arguments of a call"),
        (5, "check_inputs is of type int, it must be the arguments of a call"),
        ((torch.ones(2, 8),), "check_inputs do not fit the program: missing argument 'scale'"),
        ({"x": torch.ones(2, 8), "scale": {"by": torch.ones(3)}}, "check_inputs do not fit the program: input scale.by"),
        ((torch.ones(3, 8), {"by": torch.tensor(1.0)}), "check_inputs do not fit the program: input x"),
    ],
)  # fmt: skip
def test_what_no_call_takes_is_refused_before_anything_is_compiled(program, registry, given, says):
    with pytest.raises(hp.InputError) as raised:
        hp.compile(program, targets="a", registry=registry, check_inputs=given)
    assert says in str(raised.value)
    with pytest.raises(hp.InputError) as raised:
        hp.bench(program, registry=registry, check_inputs=given)
    assert says in str(raised.value)


class Looks(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, ids):
        self.calls += 1
        return self.table(ids) * self.calls


def test_inputs_that_the_model_itself_fails_on_are_refused_as_such(registry):
    program = hp.capture(Looks().eval(), (torch.tensor([1, 2]),))
    for call in (
        lambda given: hp.compile(planned(program, registry), registry=registry, check_inputs=given),
        lambda given: hp.bench(program, registry=registry, check_inputs=given),
    ):
        with pytest.raises(hp.InputError) as raised:
            call((torch.tensor([1, 20]),))
        assert "the program fails on them in eager PyTorch" in raised.value.what
        assert raised.value.cause == "IndexError: index out of range in self"


def test_state_is_as_it_was_after_both_verifications(registry):
    program = hp.capture(Looks().eval(), (torch.tensor([1, 2]),))
    given = torch.tensor([3, 4])
    plain = hp.Registry(path=[])
    plain.add("backend", "a", Provider("a"))
    model = hp.compile(planned(program, plain), registry=plain, check_inputs=(given,))
    assert model.held["calls"] == 0
    torch.testing.assert_close(model(given), model(given) / 2)
    model.close()


def test_where_random_numbers_are_drawn_nothing_was_compared_on_them(registry):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand_like(x)

    program = hp.capture(Noisy().eval(), (torch.ones(2),))
    model = hp.compile(planned(program, registry), registry=registry, check_inputs=(torch.ones(2),))
    assert "draw random numbers" in model.verification["not_compared"]
    assert model.verification["held_out"] is False
    model.close()


def test_of_both_errors_the_one_that_hides_behind_small_values_is_told():
    plain, hidden = Difference(3e-3, 1e-3, 1.0, 3e-3), Difference(1.5e-3, 1e-3, -1.0, 1.5)
    for pair in ((plain, hidden), (hidden, plain)):
        [(_, found)] = worse([("y", pair[0])], [("y", pair[1])], 1e-2)
        assert found is hidden


def test_measurements_are_made_on_them_and_compilers_get_the_examples(program, tmp_path):
    x, scale = arguments(10)
    held = replace(program, check_inputs=(x, scale["by"]))
    made = make_inputs(held)
    assert torch.equal(made.inputs[0], x)
    assert torch.equal(made.expected[0], Two()(x, scale))
    write_program_file(held, tmp_path / "p.pt2")
    again = read_program_file(tmp_path / "p.pt2")
    assert torch.equal(again.example_inputs[0], arguments()[0])
    assert torch.equal(again.check_inputs[0], x)


def test_a_choice_made_on_other_inputs_is_not_remembered_for_these(program):
    found = {identity.of_program(program)}
    for times in (1.0, 10.0):
        x, scale = arguments(times)
        found.add(identity.of_program(replace(program, check_inputs=(x, scale["by"]))))
    assert len(found) == 3
    x, scale = arguments()
    bare = replace(program, example_inputs=(), check_inputs=(x, scale["by"]))
    assert identity.of_program(bare) not in found


def test_the_table_says_where_int8_was_measured_on_what_it_was_calibrated_on():
    rows = (row("npu", 1.0, 1e-3, precision="int8"),)
    assert SAME_DATA in benchmark(rows).notes
    assert SAME_DATA in benchmark(rows).to_json()["notes"]  # what `bench --json` prints
    assert SAME_DATA not in benchmark(rows, held_out=True).notes
    assert SAME_DATA not in benchmark((row("npu", 1.0, 1e-3, precision="bf16"),)).notes
    known = benchmark(rows, held_out=True).to_json()
    assert benchmark_from_json(json.loads(json.dumps(known))).held_out
    del known["held_out"]  # of a file that was written before there were any
    assert not benchmark_from_json(known).held_out


MODEL = """
import torch


def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 8, 3), torch.nn.Flatten()
    )
    return model.eval(), (torch.randn(2, 3, 12, 12),)
"""


@needs_cpu
def test_int8_is_calibrated_with_the_examples_and_judged_by_what_the_file_holds(tmp_path):
    """Ten times the range of the examples: an error that they do not show."""
    from safetensors.torch import save_file

    (tmp_path / "held_out_model.py").write_text(MODEL, "utf-8")
    torch.manual_seed(1)
    save_file({"input": torch.randn(2, 3, 12, 12) * 10}, tmp_path / "held.safetensors")

    command = [sys.executable, "-m", "hardpoint.cli", "bench", "held_out_model.py:make"]
    command += ["--targets", "cpu", "--precisions", "int8", "--variants", "default"]
    command += ["--rounds", "1", "--threads", "1", "--json", "--check-inputs", "held.safetensors"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    [cpu] = [r for r in found["rows"] if r["target"].startswith("cpu")]
    assert found["held_out"]
    assert SAME_DATA not in found["notes"]
    assert cpu["errors"]["max"] > 0.1, "of what is compiled below, on its examples, it is within"


@needs_cpu
def test_compile_verifies_on_the_file_too_and_says_so(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "held_out_model.py").write_text(MODEL, "utf-8")
    save_file({"input": torch.randn(2, 3, 12, 12) * 10}, tmp_path / "held.safetensors")
    save_file({"other": torch.randn(2, 3, 12, 12)}, tmp_path / "other.safetensors")

    def run(*more):
        command = [sys.executable, "-m", "hardpoint.cli", "compile", "held_out_model.py:make"]
        return subprocess.run(
            [*command, "--target", "cpu", "-o", "out.pt2", *more],
            cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    right = run("--check-inputs", "held.safetensors")
    assert right.returncode == 0, right.stderr
    assert "on the examples and on --check-inputs" in " ".join(right.stdout.split())
    (tmp_path / "out.pt2").unlink()
    assert SAME_DATA not in " ".join(right.stdout.split())
    flattered = run("--precision", "int8", "--max-error", "0.1")
    assert flattered.returncode == 0, flattered.stderr
    assert SAME_DATA in " ".join(flattered.stdout.split())
    (tmp_path / "out.pt2").unlink()
    wrong = run("--precision", "int8", "--check-inputs", "held.safetensors")
    assert wrong.returncode == 4
    assert "on check_inputs it is not" in " ".join(wrong.stderr.split())
    assert not (tmp_path / "out.pt2").exists()
    odd = run("--check-inputs", "other.safetensors")
    assert "other.safetensors has no tensor 'input'" in " ".join(odd.stderr.split())
    missing = run("--check-inputs", "none.safetensors")
    assert "there is no file none.safetensors" in " ".join(missing.stderr.split())
