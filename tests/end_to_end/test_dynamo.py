"""``torch.compile(model, backend="hardpoint")``: the one-line form."""

import copy

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

import hardpoint as hp


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = torch.nn.Linear(4, 16), torch.nn.Linear(16, 2)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls.add_(1)
        return self.two(torch.relu(self.one(x))), x.shape[0]


def test_the_backend_is_found_by_its_name():
    assert "hardpoint" in torch._dynamo.list_backends()


def test_results_state_and_sizes_are_those_of_the_model():
    model = Net().eval()
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="hardpoint")
    with torch.no_grad():
        for rows in (3, 5, 6):
            x = torch.randn(rows, 4)
            (got, size), (want, _) = compiled(x), twin(x)
            assert torch.equal(got, want)
            assert size == rows
            assert torch.equal(model.calls, twin.calls)


def test_later_updates_of_the_weights_are_seen():
    model = Net().eval()
    compiled = torch.compile(model, backend="hardpoint")
    x = torch.randn(3, 4)
    with torch.no_grad():
        compiled(x)
        model.two.bias.add_(1)
        assert torch.equal(compiled(x)[0], model(x)[0])


def test_dynamic_shapes_asked_for_at_once_work_too():
    model = Net().eval()
    compiled = torch.compile(model, backend="hardpoint", dynamic=True)
    with torch.no_grad():
        for rows in (3, 7):
            x = torch.randn(rows, 4)
            assert torch.equal(compiled(x)[0], model(x)[0])


def test_options_name_targets_and_precision():
    model = torch.nn.Linear(4, 4).eval()
    compiled = torch.compile(
        model, backend="hardpoint", options={"targets": ["cpu"], "precision": "bf16"}
    )
    x = torch.randn(3, 4)
    with torch.no_grad():
        got, want = compiled(x), model(x)
    assert not torch.equal(got, want)
    torch.testing.assert_close(got, want, atol=3e-2, rtol=3e-2)


def test_an_embedders_registry_is_used():
    events = []
    registry = hp.Registry()
    registry.observe(events.append)
    model = torch.nn.Linear(4, 4).eval()
    with torch.no_grad():
        torch.compile(model, backend="hardpoint", options={"registry": registry})(torch.randn(3, 4))
    assert "compiled" in {e.kind for e in events}


def test_an_unknown_option_is_refused_with_the_nearest_one():
    compiled = torch.compile(
        torch.nn.Linear(4, 4), backend="hardpoint", options={"target": ["cpu"]}
    )
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match="did you mean 'targets'"):
        compiled(torch.randn(3, 4))


def test_inductors_modes_are_refused():
    compiled = torch.compile(torch.nn.Linear(4, 4), backend="hardpoint", mode="max-autotune")
    with torch.no_grad(), pytest.raises(BackendCompilerFailed, match="has no mode 'max-autotune'"):
        compiled(torch.randn(3, 4))


def test_training_is_refused_in_words():
    compiled = torch.compile(torch.nn.Linear(4, 4), backend="hardpoint")
    with pytest.raises(BackendCompilerFailed, match=r"for inference[\s\S]*torch\.no_grad"):
        compiled(torch.randn(3, 4))
