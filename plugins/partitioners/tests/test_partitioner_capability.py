"""``partitioner:capability``: preference first, reasons always, views with their neighbours."""

import pytest
import torch

import hardpoint as hp
from hardpoint.planning import compute_nodes, is_view
from hardpoint_partitioners.greedy import CapabilityPartitioner

ALL = hp.Costs()


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        hidden = torch.relu(self.one(x)).view(-1, 2, 4).transpose(1, 2)
        return self.two(hidden.reshape(-1, 8)).softmax(-1)


@pytest.fixture(scope="module")
def program():
    return hp.capture(Block().eval(), (torch.randn(3, 8),), dynamic={"x": {0: "batch"}}).exported


def target(program, name, claims):
    nodes = compute_nodes(program)
    good = frozenset(n.name for n in nodes if claims(n))
    reasons = {n.name: f"{name} has no {n.target}" for n in nodes if n.name not in good}
    return hp.TargetInfo(hp.Target(name), hp.Device("0", name), hp.Support(good, reasons))


def is_linear(node):
    return node.target is torch.ops.aten.linear.default


def assign(program, *targets):
    return CapabilityPartitioner().partition(program, targets, "latency", ALL)


def test_everything_goes_to_the_first_target_that_supports_it(program):
    answer = assign(
        program, target(program, "npu", lambda n: True), target(program, "cpu", lambda n: True)
    )
    assert set(map(str, answer.targets.values())) == {"npu"}
    assert not answer.reasons


def test_what_misses_its_first_choice_says_why(program):
    answer = assign(
        program, target(program, "npu", is_linear), target(program, "cpu", lambda n: True)
    )
    softmax = next(n for n in compute_nodes(program) if "softmax" in n.name)
    assert str(answer.targets[softmax.name]) == "cpu"
    assert answer.reasons[softmax.name] == f"not on npu: npu has no {softmax.target}"


def test_no_view_is_an_island_of_its_own(program):
    """The npu claims linear and all views; those between two cpu operations stay on the cpu."""
    npu = target(program, "npu", lambda n: is_linear(n) or is_view(n))
    answer = assign(program, npu, target(program, "cpu", lambda n: True))
    nodes = compute_nodes(program)
    for node in filter(is_view, nodes):
        near = {*node.users, *node.all_input_nodes} & set(nodes)
        assert answer.targets[node.name] in {answer.targets[n.name] for n in near}


def test_a_view_never_moves_to_a_target_that_cannot_run_it(program):
    npu = target(program, "npu", is_linear)
    answer = assign(program, npu, target(program, "cpu", lambda n: True))
    for name, chosen in answer.targets.items():
        assert str(chosen) == "cpu" or name in npu.support.supported


def test_the_same_question_has_the_same_answer(program):
    targets = (target(program, "npu", is_linear), target(program, "cpu", lambda n: True))
    assert assign(program, *targets) == assign(program, *targets)


def test_an_operation_that_nobody_runs_is_an_error_with_every_reason(program):
    with pytest.raises(hp.PlanError) as caught:
        assign(program, target(program, "npu", is_linear), target(program, "tpu", is_linear))
    for words in (
        "no target supports relu",
        "not on npu: npu has no aten.relu.default",
        "not on tpu",
    ):
        assert words in str(caught.value)


def test_the_provider_is_found_by_name_and_takes_no_options():
    registry = hp.Registry()
    assert registry.probe("partitioner", "capability").available
    assert isinstance(registry.open("partitioner", "capability"), hp.Partitioner)
    assert registry.info("partitioner", "capability").objectives == (
        "latency",
        "throughput",
        "size",
        "memory",
    )
    with pytest.raises(hp.ConfigError, match="has no option 'fast'"):
        registry.open("partitioner", "capability", {"fast": True})


class Wide(torch.nn.Module):
    """Three layers of 272 bytes; the last shares its weight (but not its bias) with the first."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (torch.nn.Linear(8, 8) for _ in range(3))
        self.three.weight = self.one.weight

    def forward(self, x):
        return self.three(torch.relu(self.two(self.one(x))))


@pytest.fixture(scope="module")
def wide():
    return hp.capture(Wide().eval(), (torch.randn(3, 8),)).exported


def limited(program, name, memory, claims=lambda node: True, device="0"):
    support = target(program, name, claims).support
    return hp.TargetInfo(hp.Target.parse(name), hp.Device(device, name, memory=memory), support)


ONE_LAYER = 8 * 8 * 4 + 8 * 4
UNIQUE = 2 * 8 * 8 * 4 + 3 * 8 * 4


def test_a_target_whose_memory_is_full_is_passed_over_and_the_reason_says_so(wide):
    answer = assign(wide, limited(wide, "npu", ONE_LAYER), limited(wide, "cpu", None))
    names = [n.name for n in compute_nodes(wide)]
    assert [str(answer.targets[name]) for name in names] == ["npu", "cpu", "npu", "cpu"]
    assert answer.reasons[names[1]] == (
        "not on npu: its memory is full: 288 of 288 bytes are taken by weights, "
        "and this needs 288 more"
    )
    # Its weight is there already; its bias is not.
    assert answer.reasons[names[3]].endswith("and this needs 32 more")


def test_a_weight_that_two_layers_share_is_counted_once(wide):
    answer = assign(wide, limited(wide, "npu", UNIQUE))
    assert set(map(str, answer.targets.values())) == {"npu"}


def test_two_names_of_one_device_share_its_memory(wide):
    answer = assign(
        wide,
        limited(wide, "npu", ONE_LAYER),
        limited(wide, "npu:0", ONE_LAYER),
        limited(wide, "cpu", None),
    )
    names = [n.name for n in compute_nodes(wide)]
    assert str(answer.targets[names[1]]) == "cpu"


def test_weights_that_fit_nowhere_are_an_error_with_every_figure(wide):
    with pytest.raises(hp.PlanError) as caught:
        assign(wide, limited(wide, "npu", ONE_LAYER), limited(wide, "cpu", 100))
    text = str(caught.value)
    assert "no target has memory left for linear_1 (aten.linear.default)" in text
    assert "not on npu: its memory is full: 288 of 288 bytes are taken by weights" in text
    assert "not on cpu: its memory is full: 0 of 100 bytes are taken" in text
    assert "add a target, or choose a smaller precision" in text


class Turned(torch.nn.Module):
    """Views of weights: they bring their bytes along."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.relu(x).sin() @ self.weight.t()


def test_a_view_of_a_weight_never_moves_to_where_the_weight_does_not_fit():
    program = hp.capture(Turned().eval(), (torch.randn(3, 8),)).exported
    npu = limited(program, "npu", 8 * 8 * 4 - 1)
    answer = assign(program, npu, limited(program, "cpu", None))
    view = next(n for n in compute_nodes(program) if is_view(n))
    assert str(answer.targets[view.name]) == "cpu"
