"""What a cold review found in capturing and running; each was wrong numbers or a lost value."""

import dataclasses
import warnings

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider


@pytest.fixture(scope="module")
def registry():
    made = hp.Registry()
    made.add("backend", "eager", Provider())
    return made


@pytest.fixture
def compiled(registry):
    def make(model, args):
        program = hp.capture(model.eval(), args, registry=registry)
        return hp.compile(hp.plan(program, targets="eager", registry=registry), registry=registry)

    return make


@dataclasses.dataclass
class Raised:
    x: object

    def __post_init__(self):
        self.x = self.x + 1


class Double(torch.nn.Module):
    def forward(self, batch):
        return batch.x * 2


class MakesOne(torch.nn.Module):
    def forward(self, x):
        return Raised(x)


def test_a_dataclass_is_not_initialized_a_second_time(compiled):
    batch = Raised(torch.zeros(2))
    assert torch.equal(compiled(Double(), (batch,))(batch), torch.full((2,), 2.0))
    assert torch.equal(compiled(MakesOne(), (torch.zeros(2),))(torch.zeros(2)).x, torch.ones(2))


def test_the_model_gets_its_own_class_even_where_no_import_finds_it(compiled):
    @dataclasses.dataclass
    class Local:
        x: object
        extra: object = dataclasses.field(init=False, default=None)

    class Asks(torch.nn.Module):
        def forward(self, batch):
            return batch.x + 1 if isinstance(batch, Local) else batch.x * 100

    batch = Local(torch.ones(2))
    assert torch.equal(compiled(Asks(), (batch,))(batch), torch.full((2,), 2.0))


class Adds(torch.nn.Module):
    def forward(self, x, y):
        x.add_(1)
        return x + y


def test_inputs_that_share_memory_with_a_written_one_are_refused(compiled):
    model = compiled(Adds(), (torch.zeros(3), torch.zeros(3)))
    both = torch.zeros(4)
    for x, y in ((both[:3], both[1:]), (both[:3], both[:3])):
        with pytest.raises(hp.InputError, match=r"x and y share memory[\s\S]*pass y.clone\(\)"):
            model(x, y)
    assert torch.equal(both, torch.zeros(4)), "nothing ran"
    assert torch.equal(model(torch.zeros(3), torch.zeros(3)), torch.ones(3))


def test_a_wrong_kind_of_result_is_found_at_every_call(compiled):
    model = compiled(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    steps = model._wiring._steps
    steps[0] = (lambda *_: (torch.zeros(1, 2, dtype=torch.int32),), *steps[0][1:])
    model._check._good.clear()
    for _ in range(2):
        with pytest.raises(hp.ContractViolation, match="must be float32"):
            model(torch.ones(1, 2))


class PlainState(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = torch.zeros(3)

    def forward(self, x):
        self.seen = self.seen + 1
        return x + self.seen


class Remembers(torch.nn.Module):
    def forward(self, x):
        self.last = x * 2
        return self.last + 1


def test_state_in_a_plain_attribute_is_refused_not_lost(compiled):
    with pytest.raises(hp.CaptureError, match=r"plain attribute 'seen'[\s\S]*register_buffer"):
        compiled(PlainState(), (torch.zeros(3),))


def test_capturing_leaves_nothing_in_the_model(compiled):
    model = Remembers()
    compiled(model, (torch.zeros(3),))
    assert not hasattr(model, "last")


def test_a_tensor_that_is_only_kept_for_a_look_is_no_state(compiled):
    model = Remembers()
    model(torch.zeros(3))
    kept = model.last
    compiled(model, (torch.zeros(3),))
    assert model.last is kept


class Counts(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(3))

    def forward(self, x):
        self.n.add_(1)
        return x + self.n


def test_verify_starts_from_the_state_that_was_captured(compiled):
    model = compiled(Counts(), (torch.zeros(3),))
    model(torch.zeros(3))
    model(torch.zeros(3))
    assert {d.error for d in model.verify().values()} == {0}
    assert model(torch.zeros(3))[0].item() == 3, "and leaves the state as it was"


def test_using_the_users_model_changes_nothing_in_the_program(compiled, registry):
    model, x = Counts().eval(), torch.zeros(3)
    program = hp.capture(model, (x,), registry=registry)
    model(x)
    x.fill_(7)
    made = hp.compile(hp.plan(program, targets="eager", registry=registry), registry=registry)
    assert made(torch.zeros(3))[0].item() == 1
    assert torch.equal(program.example_inputs[0], torch.zeros(3))


def test_a_model_whose_weights_changed_is_not_saved_with_old_figures(compiled, tmp_path):
    linear = torch.nn.Linear(2, 2)
    model = compiled(linear, (torch.ones(1, 2),))
    with torch.no_grad():
        linear.weight.zero_()
    with pytest.raises(hp.PackageError, match="weights changed since it was compiled"):
        model.save(tmp_path / "changed.pt2")
    assert not list(tmp_path.iterdir())


def test_a_stateful_model_compiled_in_inference_mode_runs_outside_of_it(compiled):
    with torch.inference_mode():
        model = compiled(Counts(), (torch.zeros(3),))
    assert model(torch.zeros(3))[0].item() == 1


def test_torch_compile_takes_a_changing_number():
    torch._dynamo.reset()
    registry = hp.Registry()
    registry.add("backend", "eager", Provider())
    options = {"registry": registry, "targets": ["eager"]}
    compiled = torch.compile(lambda x, k: x * k, backend="hardpoint", options=options)
    for k in (2, 3, 5):
        assert torch.equal(compiled(torch.ones(3), k), torch.full((3,), float(k)))


def test_torch_compile_refuses_a_result_that_would_lose_its_input():
    torch._dynamo.reset()
    registry = hp.Registry()
    registry.add("backend", "eager", Provider())
    options = {"registry": registry, "targets": ["eager"]}

    def view_of_written(x):
        x.mul_(2)
        return x.view(-1)

    compiled = torch.compile(view_of_written, backend="hardpoint", options=options)
    with (
        warnings.catch_warnings(),
        pytest.raises(Exception, match="a view of an input that it changes"),
    ):
        compiled(torch.ones(2, 2))


def test_a_failing_capture_prints_no_graphs_beside_its_error(capsys, monkeypatch):
    class Branches(torch.nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(hp.CaptureError, match=r"torch\.where"):
        hp.capture(Branches().eval(), (torch.randn(3),))
    assert "def forward" not in capsys.readouterr().err
    monkeypatch.setenv("HARDPOINT_DEBUG", "1")
    with pytest.raises(hp.CaptureError):
        hp.capture(Branches().eval(), (torch.randn(3),))
    assert "def forward" in capsys.readouterr().err
