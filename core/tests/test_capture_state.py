"""State: buffers that a call changes belong to the compiled model, not to the user's module."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hardpoint as hp
from splitting import Scatter, registry

MOUNTED = registry()


def compiled(model, *args, targets="a"):
    program = hp.capture(model, args, registry=MOUNTED)
    plan = hp.plan(program, targets=targets, partitioner=Scatter(0, 3, 1), registry=MOUNTED)
    return plan, hp.compile(plan, registry=MOUNTED)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(3), persistent=False)

    def forward(self, x):
        self.count = self.count + 1
        self.seen = 0.5 * self.seen + x
        return x * self.count


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Inner(), Inner()

    def forward(self, x):
        return self.second(self.first(x)) + self.first.seen


def test_buffers_of_inner_modules_that_are_assigned_anew_keep_their_values():
    model = Outer().eval()
    _, run = compiled(copy.deepcopy(model), torch.ones(3), targets=("a", "b", "c"))
    for step in range(4):
        x = torch.full((3,), float(step))
        torch.testing.assert_close(run(x), model(x), rtol=0, atol=0)
    state = dict(model.named_buffers())
    for name, value in run.held.items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_capture_and_compile_and_calls_leave_the_users_model_alone():
    model = Outer().eval()
    before = copy.deepcopy(dict(model.named_buffers()))
    objects = {name: id(buffer) for name, buffer in model.named_buffers()}
    _, run = compiled(model, torch.ones(3))
    run(torch.ones(3))
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
        assert type(buffer) is torch.Tensor
        assert id(buffer) == objects[name]


def test_two_compiled_models_of_one_plan_have_states_of_their_own():
    plan, first = compiled(Outer().eval(), torch.ones(3))
    second = hp.compile(plan, registry=MOUNTED)
    x = torch.ones(3)
    assert torch.equal(first(x), x + x)  # count 1, seen 1
    assert not torch.equal(first(x), x + x)
    assert torch.equal(second(x), x + x)


def test_verification_at_compile_time_leaves_the_state_at_its_beginning():
    _, run = compiled(Outer().eval(), torch.ones(3))
    assert all(not value.any() for value in run.held.values())


class Rotating(nn.Module):
    """Old state is a result, and old state is other state's new value."""

    def __init__(self):
        super().__init__()
        for i in range(3):
            self.register_buffer(f"slot{i}", torch.full((2,), float(i)))

    def forward(self, x):
        oldest = self.slot0
        self.slot0, self.slot1, self.slot2 = self.slot1, self.slot2, x
        return oldest, oldest[1:], self.slot0


def test_rotating_state_gives_out_values_that_later_calls_do_not_change():
    model = Rotating().eval()
    _, run = compiled(copy.deepcopy(model), torch.ones(2), targets=("a", "b"))
    for step in range(5):
        x = torch.full((2,), 10.0 + step)
        want = [t.clone() for t in model(x)]
        got = run(x)
        kept = [t.clone() for t in got]
        run_again = copy.deepcopy(run.held)
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
        run(x)  # must not change what was given out
        for a, b in zip(got, kept, strict=True):
            assert torch.equal(a, b)
        for name, value in run_again.items():
            run.held[name].copy_(value)


def test_a_tensor_that_is_no_buffer_and_is_assigned_is_no_state():
    class Remembers(nn.Module):
        def forward(self, x):
            self.last = x * 2
            return self.last + 1

    model = Remembers().eval()
    _, run = compiled(model, torch.ones(2))
    assert type(getattr(model, "last", None)) in (type(None), torch.Tensor)
    assert torch.equal(run(torch.ones(2)), torch.full((2,), 3.0))
    assert not run.held


def test_a_parameter_written_in_place_is_state_too():
    class Learns(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            with torch.no_grad():
                self.weight.add_(x)
            return x * self.weight

    model = Learns().eval()
    _, run = compiled(copy.deepcopy(model), torch.ones(2))
    for _ in range(3):
        with torch.no_grad():
            want = model(torch.ones(2))
        assert torch.equal(run(torch.ones(2)), want)


def test_a_kept_input_is_changed_as_the_model_changes_it():
    class Adds(nn.Module):
        def forward(self, x, y):
            x.add_(y)
            return y

    _, run = compiled(Adds().eval(), torch.ones(2), torch.ones(2))
    x = torch.zeros(2)
    run(x, torch.ones(2))
    run(x, torch.ones(2))
    assert torch.equal(x, torch.full((2,), 2.0))


@pytest.mark.parametrize("part", [slice(0, 2), slice(1, 4, 2)])
def test_an_input_that_is_part_of_another_tensor_is_changed_in_place(part):
    class Fills(nn.Module):
        def forward(self, x):
            x.fill_(7)
            return x.sum()

    _, run = compiled(Fills().eval(), torch.ones(2))
    whole = torch.zeros(4)
    run(whole[part])
    assert whole.sum() == 14
