"""A compiled model shares weights with the model that it was captured from: edits are noticed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import hardpoint as hp


@pytest.fixture
def registry():
    return hp.Registry()


class Counting(nn.Module):
    """Linear, and a count of its calls."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls.add_(1)
        return self.linear(x) + self.calls


@pytest.fixture
def compiled(registry):
    def make(model, x):
        program = hp.capture(model.eval(), (x,), registry=registry, name="mine")
        return hp.compile(hp.plan(program, targets="cpu", registry=registry), registry=registry)

    return make


def test_a_call_after_an_edit_is_refused_by_the_name_of_a_weight(compiled):
    model, x = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), torch.ones(1, 3)
    made = compiled(model, x)
    before = made(x)
    with torch.no_grad():
        model[1].weight.mul_(2)
        model[1].bias.zero_()
    with pytest.raises(hp.VerificationError) as error:
        made(x)
    assert str(error.value) == (
        "mine was not run: the model's weights changed since it was compiled\n"
        "  cause: 2 changed, e.g. 1.weight; a backend reads some where they lie and copied others\n"
        "  remedy: compile again; what goes on being trained is compiled from copy.deepcopy(model)"
    )
    again = compiled(model, x)(x)
    assert torch.allclose(again, model(x))
    assert not torch.allclose(again, before)


@pytest.mark.parametrize("how", ["optimizer", "load_state_dict", "copy_"])
def test_each_usual_way_to_change_weights_is_noticed(compiled, how):
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    made = compiled(model, x)
    made(x)
    if how == "optimizer":
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model(x).sum().backward()
        assert made(x) is not None, "gradients are no edits"
        optimizer.step()
    elif how == "load_state_dict":
        model.load_state_dict(nn.Linear(3, 3).state_dict())
    else:
        with torch.no_grad():
            model.bias.copy_(torch.ones(3))
    with pytest.raises(hp.VerificationError, match="weights changed"):
        made(x)


def test_what_is_compiled_from_a_copy_goes_on(compiled):
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    made = compiled(copy.deepcopy(model), x)
    before = made(x)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(made(x), before)


def test_state_that_the_users_model_changes_is_not_the_compiled_models(compiled):
    model, x = Counting(), torch.zeros(1, 3)
    made = compiled(model, x)
    model(x)
    model(x)
    expected = model.linear(x)
    assert torch.allclose(made(x), expected + 1)
    assert torch.allclose(made(x), expected + 2)


def test_weights_without_a_count_of_writes_are_taken_as_they_are(compiled):
    with torch.inference_mode():
        model = nn.Linear(3, 3).requires_grad_(False)
    x = torch.ones(1, 3)
    made = compiled(model, x)
    assert torch.equal(made(x), model(x))


def test_a_loaded_package_has_weights_of_its_own(compiled, registry, tmp_path):
    model, x = nn.Linear(3, 3), torch.ones(1, 3)
    made = compiled(model, x)
    before = made(x)
    loaded = hp.load(made.save(tmp_path / "mine.pt2"), registry=registry)
    with torch.no_grad():
        model.weight.zero_()
    assert torch.equal(loaded(x), before)


def test_torch_compile_follows_edits(registry):
    torch._dynamo.reset()
    model, x = nn.Linear(3, 3).eval(), torch.ones(1, 3)
    options = {"registry": registry, "targets": ["cpu"]}
    made = torch.compile(model, backend="hardpoint", options=options)
    with torch.no_grad():
        assert torch.equal(made(x), model(x))
        model.weight.mul_(2)
        assert torch.equal(made(x), model(x))
