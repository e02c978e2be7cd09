"""A compiled model in use: results, threads, gradients, errors, and what a call leaves behind."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from splitting import CASES, Scatter, program


class Spoiled(Executable):
    """An executable whose results are changed on the way out, from the given call on."""

    def __init__(self, inner, change, after):
        self.inner, self.change, self.left, self.closed = inner, change, after, 0

    def __call__(self, *inputs):
        self.left -= 1
        outputs = self.inner(*inputs)
        return outputs if self.left >= 0 else self.change(outputs)

    def close(self):
        self.closed += 1


def mounted(change=lambda outputs: outputs, after=10**9):
    registry = hp.Registry(path=[])
    registry.add("backend", "a", Provider("a", spoil=lambda inner: Spoiled(inner, change, after)))
    registry.add("backend", "b", Provider("b", strided=True))
    return registry


def compiled(name="grouped_attention", targets=("b",), registry=None, run=1):
    registry = registry or mounted()
    case_program = program(name) if isinstance(name, str) else name
    plan = hp.plan(case_program, targets=targets, partitioner=Scatter(1, len(targets), run), registry=registry)  # fmt: skip
    return hp.compile(plan, registry=registry)


def captured(model, *args, **options):
    return hp.capture(model.eval(), args, registry=hp.Registry(path=[]), **options)


def test_results_stay_valid_after_the_next_calls():
    run = compiled(targets=("a", "b"))
    (first,), _ = CASES["grouped_attention"].call(0)
    kept = run(first)
    before = kept.clone()
    for i in range(1, 4):
        run(*CASES["grouped_attention"].call(i)[0])
    assert torch.equal(kept, before)


@pytest.mark.parametrize("name", ["grouped_attention", "counter"])
def test_four_threads_get_what_one_gets(name):
    run = compiled(name, targets=("a", "b"))
    inputs = [CASES[name].call(i)[0] for i in range(4)]
    stateless = not run.schedule.state_writes
    want = [run(*args) for args in inputs] if stateless else None
    found: dict[int, list] = {}
    start = threading.Barrier(4)

    def work(i):
        start.wait()
        found[i] = [run(*inputs[i]) for _ in range(25)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    if stateless:
        assert all(torch.equal(result, want[i]) for i in found for result in found[i])
    else:  # no count is lost
        assert int(run.held["count"]) == 100


def test_an_input_that_requires_grad_is_refused():
    run = compiled()
    x = CASES["grouped_attention"].call(0)[0][0].requires_grad_()
    with pytest.raises(hp.InputError) as error:
        run(x)
    assert str(error.value) == (
        "input x requires grad; a compiled model does inference only\n"
        "  remedy: call it under torch.no_grad(), or pass .detach()"
    )
    with torch.no_grad():
        assert not run(x).requires_grad
    assert not run(x.detach()).requires_grad


@pytest.mark.parametrize("enabled", [True, False])
def test_the_gradient_mode_is_what_it_was_also_after_a_failure(enabled):
    def fail(outputs):
        raise RuntimeError("device lost")

    run = compiled(targets=("a",), registry=mounted(fail, after=2))
    x = CASES["grouped_attention"].call(0)[0][0]
    with torch.set_grad_enabled(enabled):
        with pytest.raises(hp.ProviderFailed):
            run(x)
        assert torch.is_grad_enabled() is enabled
        with pytest.raises(hp.InputError):
            run(x.double())
        assert torch.is_grad_enabled() is enabled


def test_an_executable_that_raises_is_named():
    def fail(outputs):
        raise RuntimeError("device lost")

    run = compiled(targets=("a",), registry=mounted(fail, after=2))
    with pytest.raises(hp.ProviderFailed) as error:
        run(*CASES["grouped_attention"].call(0)[0])
    assert str(error.value) == (
        "segment s0 failed on a\n"
        "  provider: backend:a (from this process)\n"
        "  cause: RuntimeError: device lost\n"
        "  remedy: compile for another target, or report it to the plugin's author"
    )
    assert isinstance(error.value.__cause__, RuntimeError)


def test_an_error_of_hardpoint_goes_through_as_it_is():
    def fail(outputs):
        raise hp.ArtifactError("the driver was updated", remedy="compile again")

    run = compiled(targets=("a",), registry=mounted(fail, after=2))
    with pytest.raises(hp.ArtifactError, match="the driver was updated"):
        run(*CASES["grouped_attention"].call(0)[0])


def test_a_failed_call_changes_no_state():
    def fail(outputs):
        raise RuntimeError("device lost")

    run = compiled("counter", targets=("a",), registry=mounted(fail, after=3))
    x = torch.ones(2, 4)
    with pytest.raises(hp.ProviderFailed):
        run(x)
    assert int(run.held["count"]) == 0


@pytest.mark.parametrize("calls", [0, 1])
@pytest.mark.parametrize("change", [list, lambda out: out[:-1], lambda out: (*out, *out), lambda out: None])  # fmt: skip
def test_results_that_are_no_tuple_of_the_right_length_are_refused_at_any_call(change, calls):
    run = compiled("tied_weights", ("a", "b"), mounted(change, after=2 + calls))
    ids = torch.randint(11, (2, 5))
    with pytest.raises(hp.ContractViolation) as error:
        for _ in range(calls + 1):
            run(ids)
    assert str(error.value).startswith("segment s")
    assert "gave a wrong kind of result on a\n  provider: backend:a (from this process)" in str(error.value)  # fmt: skip


def test_a_result_of_a_wrong_size_at_new_sizes_names_its_segment():
    run = compiled("tied_weights", ("a",), mounted(lambda out: (out[0][:, :3],), after=2))
    with pytest.raises(hp.ContractViolation) as error:
        run(torch.randint(11, (2, 7)))
    assert str(error.value) == (
        "segment s0 gave a wrong kind of result on a\n"
        "  provider: backend:a (from this process)\n"
        "  cause: result0 is float32[2, 3, 11], it must be float32[2, 7, 11]\n"
        "  remedy: report it to the plugin's author; `hardpoint check` shows the whole contract"
    )
    with pytest.raises(hp.ContractViolation):  # and is not remembered as good
        run(torch.randint(11, (2, 7)))


def test_close_closes_every_executable():
    run = compiled(targets=("a", "b"))
    run.close()
    assert all(s.executable.closed == 1 for s in run.segments if s.target.backend == "a")


def test_flat_tensors_go_in_and_come_out_of_run():
    run = compiled("nested_inputs", ("b",))
    args, _ = CASES["nested_inputs"].call(1)
    nested = run(*copy.deepcopy(args))
    flat = run.run(run.signature.bind(args, {}))
    assert torch.equal(flat[0], nested["sum"])


def test_compiled_models_print_what_they_are():
    run = compiled(targets=("b",))
    assert str(run) == (
        "compiled GroupedAttention: x: float32[batch, seq, 8]\n"
        "  s0  b  eager-test/1\n"
        "  verified: max error 0"
    ).replace("GroupedAttention", run.facts.name)


def test_a_verified_model_verifies_again():
    run = compiled(targets=("a", "b"))
    assert {name: d.error for name, d in run.verify().items()} == {"result0": 0.0}


def test_a_model_with_state_verifies_from_the_captured_state_and_keeps_its_own():
    run = compiled("counter", ("a", "b"))
    for _ in range(3):
        run(torch.ones(2, 4))
    assert all(d.error == 0 for d in run.verify().values())
    assert int(run.held["count"]) == 3


class Inputs(nn.Module):
    def forward(self, ids, values, image):
        return ids.sum() + values.sum() + image.sum(), ids


INPUTS = (torch.zeros(3, 5, dtype=torch.int64), torch.zeros(3, 2), torch.zeros(2, 2))


@pytest.fixture(scope="module")
def checked():
    sizes = {"ids": {0: "batch", 1: "seq"}, "values": {0: "batch"}}
    return compiled(captured(Inputs(), *INPUTS, dynamic=sizes), ("b",))


@pytest.mark.parametrize(
    ("at", "tensor", "text"),
    [
        (0, torch.zeros(3, 5), "input ids: its dtype is float32, it must be int64\n  cause: got a tensor of shape [3, 5], the program takes ids: int64[batch, seq]\n  remedy: convert it yourself: ids.to(torch.int64)"),
        (0, torch.zeros(5, dtype=torch.int64), "input ids: it has 1 dimensions, it must have 2\n  cause: got a tensor of shape [5], the program takes ids: int64[batch, seq]\n  remedy: pass another tensor, or capture again with that size dynamic"),
        (1, torch.zeros(3, 4), "input values: dimension 1 is 4, it must be 2\n  cause: got a tensor of shape [3, 4], the program takes values: float32[batch, 2]\n  remedy: pass another tensor, or capture again with that size dynamic"),
        (1, torch.zeros(4, 2), "input values: dimension 0 (batch) is 4, but ids (dimension 0) has 3\n  cause: got a tensor of shape [4, 2], the program takes values: float32[batch, 2]\n  remedy: pass another tensor, or capture again with that size dynamic"),
        (2, torch.eye(2).to_sparse(), "input image: its layout is torch.sparse_coo, it must be dense\n  cause: got a tensor of shape [2, 2], the program takes image: float32[2, 2]\n  remedy: pass another tensor, or capture again with that size dynamic"),
        (2, torch.zeros(2, 2, device="meta"), "input image: it is on meta, it must be on cpu\n  cause: got a tensor of shape [2, 2], the program takes image: float32[2, 2]\n  remedy: move it yourself: .to('cpu')"),
        (2, [[0.0, 0.0], [0.0, 0.0]], "input image is list, it must be a tensor\n  remedy: the program takes ids: int64[batch, seq], values: float32[batch, 2], image: float32[2, 2]"),
        (1, None, "input values is NoneType, it must be a tensor\n  remedy: the program takes ids: int64[batch, seq], values: float32[batch, 2], image: float32[2, 2]"),
    ],
)  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused_before_anything_runs(checked, at, tensor, text):
    args = list(INPUTS)
    args[at] = tensor
    for _ in range(2):  # a refusal is not remembered as good
        with pytest.raises(hp.InputError) as error:
            checked(*args)
        assert str(error.value) == text


def test_a_numpy_array_is_no_tensor(checked):
    with pytest.raises(hp.InputError, match="input ids is ndarray, it must be a tensor"):
        checked(INPUTS[0].numpy(), *INPUTS[1:])


def test_inputs_that_share_memory_with_a_written_one_are_refused():
    class Writes(nn.Module):
        def forward(self, x, y):
            x.add_(1)
            return y * 2

    run = compiled(captured(Writes(), torch.zeros(3), torch.zeros(3)), ("b",))
    whole = torch.zeros(4)
    with pytest.raises(hp.InputError) as error:
        run(whole[:3], whole[1:])
    assert str(error.value) == (
        "inputs x and y share memory, and the program writes to x\n  remedy: pass y.clone()"
    )
    run(whole[:3], whole[1:].clone())
    assert whole.tolist() == [1, 1, 1, 0]


def test_inputs_need_not_be_contiguous():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    run = compiled(captured(model, torch.zeros(2, 3, 6, 6)), ("b",))
    x = torch.randn(2, 3, 6, 6)
    for strided in (x.to(memory_format=torch.channels_last), x.mT.contiguous().mT, x.flip(0)):
        with torch.no_grad():
            torch.testing.assert_close(run(strided), model(strided))


def test_a_program_remembers_thousands_of_sizes_and_then_starts_afresh(monkeypatch):
    import hardpoint.runtime.check as check

    monkeypatch.setattr(check, "REMEMBERED", 3)
    run = compiled("tied_weights", ("b",))
    for length in (2, 3, 4, 5, 6, 2, 3):
        assert run(torch.zeros(2, length, dtype=torch.int64)).shape == (2, length, 11)


def test_observers_hear_of_the_first_run_with_new_sizes_only():
    registry = mounted()
    heard = []
    registry.observe(lambda event: heard.append(event.kind))
    run = compiled("tied_weights", ("b",), registry)
    heard.clear()
    for length in (4, 4, 5, 4, 5):
        run(torch.zeros(2, length, dtype=torch.int64))
    assert heard == ["ran", "ran"]
