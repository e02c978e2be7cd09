"""What runtimes are known to get wrong in silence, and who keeps each from a user.

One backend for each flaw, through `hp.compile`: the core must repair it, or refuse it. What shows in
no single call is found by the conformance kit; the table names the check.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.testing.suites import checks_of_kind
from splitting import Scatter, program

# Flaw -> the test here whose backend has it, or the kit's check, or both.
TRAPS = {
    "state frozen when it was compiled": "test_state_that_was_frozen kit:model_decoder",
    "writes to an input are lost": "test_writes_to_an_input_come_back",
    "writes to an input of its own accord": "test_an_input_that_it_uses_as_scratch kit:inputs_stay_unchanged",
    "int64 computed in int32": "test_numbers_that_it_loses kit:integers",
    "negative division truncated": "test_numbers_that_it_loses kit:integers",
    "NaN lost": "test_numbers_that_it_loses kit:nan_and_infinity",
    "float64 computed in float32": "test_float64_computed_in_float32 kit:operators_are_right",
    "a wrong static size accepted": "test_a_call_that_does_not_fit_never_reaches_it",
    "a wrong dtype cast or reinterpreted": "test_a_call_that_does_not_fit_never_reaches_it",
    "a size past its range accepted": "test_a_call_that_does_not_fit_never_reaches_it",
    "results of another dtype": "test_results_that_are_cast kit:booleans",
    "strides ignored": "test_strides_that_it_ignores",
    "strides ignored where it says it honours them": "kit:inputs_of_any_strides",
    "aligned addresses needed": "test_addresses_that_it_cannot_take",
    "results overwritten by the next call": "test_results_that_its_next_call_overwrites kit:results_outlive_the_next_call",
    "results overwritten by a later call": "kit:results_outlive_the_next_call kit:a_thousand_calls",
    "no None and no numbers as results": "test_it_sees_tensors_alone",
    "one request, busy": "test_a_busy_request_is_an_error_that_names_it kit:eight_threads_at_once",
    "one request, shared by threads in silence": "kit:eight_threads_at_once",
    "hangs in a forked child": "kit:forked_after_load",
    "narrower precision by its own choice": "test_a_precision_that_it_chose_itself kit:facts_are_true",
    "the CPU instead of the device": "kit:no_silent_cpu_fallback",
    "some weights shared with the live model": "test_weights_that_the_user_edits",
}  # fmt: skip


def test_each_flaw_has_a_guard_that_exists():
    checks = {f"kit:{check.name}" for check in checks_of_kind("backend")}
    tests = [name for name in globals() if name.startswith("test_")]
    named = [guard for guards in TRAPS.values() for guard in guards.split()]
    assert not [g for g in named if g not in checks and not any(t.startswith(g) for t in tests)]


class Flawed(Executable):
    """The correct executable; a flaw overrides `spoil`, or the call itself."""

    def __init__(self, inner):
        self.inner, self.calls = inner, 0

    def __call__(self, *inputs):
        self.calls += 1
        return tuple(map(self.spoil, self.inner(*inputs)))

    def spoil(self, result):
        return result


def compiled(flaw, model, *args, strided=True, alignment=1, max_error=None, **options):
    registry = hp.Registry(path=[])
    provider = Provider("flawed", spoil=flaw, strided=strided)
    info = provider.hardpoint_backend_info()
    if alignment != 1:
        info = type(info)(requires_api=(1, 0), summary="", precisions=("fp32",), strided_inputs=strided, alignment=alignment)  # fmt: skip
        provider.hardpoint_backend_info = hp.hookimpl(lambda: info)
    registry.add("backend", "flawed", provider)
    captured = model if isinstance(model, hp.Program) else hp.capture(model.eval(), args, registry=registry, **options)  # fmt: skip
    plan = hp.plan(captured, targets="flawed", partitioner=Scatter(1, 1, 1), registry=registry)
    return hp.compile(plan, registry=registry, max_error=max_error)


class Calls(nn.Module):
    """A function as a model."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Frozen(Flawed):
    """Takes its 0-d inputs, which here are state, for constants."""

    kept = None

    def __call__(self, *inputs):
        if self.kept is None:
            self.kept = [t.clone() if t.dim() == 0 else None for t in inputs]
        seen = zip(self.kept, inputs, strict=True)
        return super().__call__(*[t if kept is None else kept for kept, t in seen])


def test_state_that_was_frozen_is_refused_when_it_is_compiled():
    with pytest.raises(hp.VerificationError) as error:
        compiled(Frozen, program("counter"))
    assert "the compiled model gives wrong numbers: error " in str(error.value)
    assert "on the second, which starts from the state that the first has left" in str(error.value)


def test_state_that_was_frozen_shows_in_the_figures_where_no_limit_is_set():
    # So measuring compiles: who asked for it judges by the figures.
    limit = float("inf")
    wrong = compiled(Frozen, program("counter"), max_error=limit)
    right = compiled(Flawed, program("counter"), max_error=limit)
    assert wrong.verification["max_error"] == "inf"  # the count is exact, or different
    assert right.verification["max_error"] < 1e-6


def test_writes_to_an_input_come_back():
    class Writes(nn.Module):
        def forward(self, x):
            x.add_(1)
            return x * 2

    x = torch.zeros(3)
    assert compiled(Flawed, Writes(), torch.zeros(3))(x).tolist() == [2, 2, 2]
    assert x.tolist() == [1, 1, 1]


def test_an_input_that_it_uses_as_scratch_is_refused():
    class Scratch(Flawed):
        def __call__(self, *inputs):
            results = super().__call__(*inputs)
            inputs[0].mul_(2)
            return results

    with pytest.raises(hp.VerificationError, match=r"segment s0 changes its input .* on flawed"):
        compiled(Scratch, Calls(lambda x: x + 1), torch.ones(3))


class In32Bits(Flawed):
    def spoil(self, result):
        return result.to(torch.int32).to(torch.int64)


class Truncates(Flawed):
    def spoil(self, result):
        return torch.where(result < 0, result + 1, result)


class DropsNaN(Flawed):
    def spoil(self, result):
        return result.nan_to_num(0.0, torch.inf, -torch.inf)


@pytest.mark.parametrize(
    ("flaw", "model", "example"),
    [
        (In32Bits, lambda x: x * 4, torch.tensor([2**31, 1])),
        (Truncates, lambda x: x // 2, torch.tensor([-7, 7])),
        (DropsNaN, torch.relu, torch.tensor([float("nan"), -1.0])),
    ],
)
def test_numbers_that_it_loses_are_refused_where_the_examples_have_such(flaw, model, example):
    with pytest.raises(hp.VerificationError, match="gives wrong numbers on flawed: error inf"):
        compiled(flaw, Calls(model), example)


class InFloat32(Flawed):
    def spoil(self, result):
        return result.float().double()


def test_float64_computed_in_float32_is_refused():
    model = nn.Linear(8, 8).double()
    with pytest.raises(hp.VerificationError, match="at most 1e-09 is allowed"):
        compiled(InFloat32, model, torch.randn(2, 8).double())
    compiled(Flawed, model, torch.randn(2, 8).double())
    mixed = Calls(lambda x: (x.float() * 3).double())  # rounds by itself
    compiled(InFloat32, mixed, torch.randn(2, 8).double())


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (torch.ones(2, 5), "dimension 1 is 5, it must be 4"),
        (torch.ones(2, 4, dtype=torch.int32), "its dtype is int32, it must be float32"),
        (torch.ones(9, 4), r"dimension 0 \(n\) is 9, it must be \d to 8"),
        (torch.ones(2, 4, 1), "it has 3 dimensions, it must have 2"),
    ],
)
def test_a_call_that_does_not_fit_never_reaches_it(bad, says):
    n = torch.export.Dim("n", min=2, max=8)
    run = compiled(Flawed, nn.Linear(4, 4), torch.ones(3, 4), dynamic={"input": {0: n}})
    executable = run.segments[0].executable
    run(torch.ones(5, 4))
    calls = executable.calls
    with pytest.raises(hp.InputError, match=says):
        run(bad)
    assert executable.calls == calls


def test_results_that_are_cast_are_refused():
    class Narrow(Flawed):
        def spoil(self, result):
            return result.half()

    with pytest.raises(hp.ContractViolation, match="has dtype float16, the program says float32"):
        compiled(Narrow, Calls(torch.relu), torch.ones(2))


class IgnoresStrides(Flawed):
    """Reads memory from front to back."""

    def __call__(self, *inputs):
        flat = [torch.as_strided(t, t.shape, torch.empty(t.shape).stride()) for t in inputs]
        return super().__call__(*flat)


@pytest.mark.parametrize(
    "turn", [lambda t: t.T.contiguous().T, lambda t: t.repeat_interleave(2, 1)[:, ::2]]
)
def test_strides_that_it_ignores_never_reach_it(turn):
    run = compiled(IgnoresStrides, Calls(lambda x: x * 2), torch.ones(4, 4), strided=False)
    x = torch.randn(4, 4)
    torch.testing.assert_close(run(turn(x)), x * 2)
    assert run.segments[0].copies.counts() == {"contiguous": 1}
    run(x)
    assert run.segments[0].copies.counts() == {"contiguous": 1}, "what fits is not copied"


@pytest.mark.parametrize("alignment", [16, 64, 4096])
def test_addresses_that_it_cannot_take_never_reach_it(alignment):
    class Aligned(Flawed):
        def __call__(self, *inputs):
            assert all(t.data_ptr() % alignment == 0 for t in inputs)
            assert all(t.is_contiguous() for t in inputs)
            return super().__call__(*inputs)

    run = compiled(Aligned, Calls(lambda x: x * 2), torch.ones(4, 5), strided=False, alignment=alignment)  # fmt: skip
    before = run.segments[0].copies.counts().get("aligned", 0)
    whole = torch.randn(21)
    view = whole[1:].view(4, 5)
    torch.testing.assert_close(run(view), view * 2)
    assert run.segments[0].copies.counts()["aligned"] == before + 1
    for odd in (torch.tensor(3.0).expand(4, 5), torch.randn(5, 4).T):
        torch.testing.assert_close(run(odd), odd * 2)


class Reuses(Flawed):
    """Gives the same memory at every call."""

    buffers: list | None = None

    def __call__(self, *inputs):
        results = super().__call__(*inputs)
        if self.buffers is None:
            self.buffers = [r.clone() for r in results]
        return tuple(b.copy_(r) for b, r in zip(self.buffers, results, strict=True))


def test_results_that_its_next_call_overwrites_are_refused_where_the_inputs_are_tokens():
    with pytest.raises(hp.ContractViolation, match="overwrites its results at its next call"):
        compiled(Reuses, nn.Embedding(10, 4), torch.tensor([[1, 2, 3]]))


def test_results_that_its_next_call_overwrites_are_refused():
    with pytest.raises(hp.ContractViolation) as error:
        compiled(Reuses, nn.Linear(4, 4), torch.randn(2, 4))
    assert str(error.value) == (
        "segment s0 overwrites its results at its next call on flawed\n"
        "  provider: backend:flawed (from this process)\n"
        "  cause: an executable's results stay valid after the next call\n"
        "  remedy: leave that target out, and report it to the plugin's author"
    )


def test_results_that_lie_in_one_place_and_do_not_change_are_no_flaw():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", torch.arange(6.0))

        def forward(self, x):
            return self.table.view(2, 3).T, x + 1

    table, more = compiled(Flawed, Constant(), torch.ones(2))(torch.ones(2))
    assert torch.equal(table, torch.arange(6.0).view(2, 3).T)
    assert torch.equal(more, torch.full((2,), 2.0))


def test_it_sees_tensors_alone():
    class Seen(Flawed):
        def __call__(self, *inputs):
            results = super().__call__(*inputs)
            assert all(isinstance(t, torch.Tensor) for t in (*inputs, *results))
            return results

    class Mixed(nn.Module):
        def forward(self, x):
            return x + 1, None, 3, {"size": x.shape[0]}

    run = compiled(Seen, Mixed(), torch.ones(2, 2), dynamic={"x": {0: "n"}})
    got, none, three, rest = run(torch.ones(4, 2))
    assert (got.shape, none, three, rest) == ((4, 2), None, 3, {"size": 4})


def test_a_busy_request_is_an_error_that_names_it():
    class Busy(Flawed):
        def __call__(self, *inputs):
            if self.calls == 2:
                raise RuntimeError("Infer Request is busy")
            return super().__call__(*inputs)

    with pytest.raises(hp.ProviderFailed, match=r"segment s0 failed on flawed[^$]*is busy"):
        compiled(Busy, Calls(torch.relu), torch.ones(2))(torch.ones(2))


def says(precision, **more):
    class Says(Flawed):
        def facts(self):
            return {"precision": precision, **more}

    return Says


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int8w"])
def test_a_precision_that_it_chose_itself_is_refused(precision):
    with pytest.raises(hp.VerificationError) as error:
        compiled(says(precision), Calls(torch.relu), torch.ones(2))
    assert str(error.value) == (
        f"segment s0 computes in {precision} on flawed, not in fp32\n"
        "  provider: backend:flawed (from this process)\n"
        "  cause: the runtime chose it by itself\n"
        f"  remedy: ask for precision={precision!r} if that is good enough, or leave that target out"
    )


def test_what_the_runtime_says_is_in_the_figures():
    run = compiled(says("fp32", fallback_nodes=["Add_3"]), Calls(torch.relu), torch.ones(2))
    said = {"precision": "fp32", "fallback_nodes": ["Add_3"]}
    assert run.verification["executed"] == {"s0": said}


@pytest.mark.parametrize(
    ("flaw", "cause"),
    [
        (says("fp31"), "precision 'fp31' is none of fp32, bf16, fp16, int8, int8w, int4w"),
        (says("fp32", seconds=float("nan")), "ValueError: Out of range float values"),
        (says("fp32", device=torch.device("cpu")), "TypeError: Object of type device"),
    ],
)
def test_facts_that_are_not_well_formed_are_refused(flaw, cause):
    with pytest.raises(hp.ContractViolation, match=cause):
        compiled(flaw, Calls(torch.relu), torch.ones(2))


def test_weights_that_the_user_edits_are_not_run_with():
    linear = nn.Linear(3, 3)
    run = compiled(Flawed, linear, torch.ones(1, 3))
    with torch.no_grad():
        linear.weight.mul_(2)
    with pytest.raises(hp.VerificationError, match="the model's weights changed since"):
        run(torch.ones(1, 3))
