"""The partitioner that ``hardpoint new`` makes: valid, cheapest of its candidates, linear."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.export import ExportedProgram

import hardpoint as hp
from hardpoint.planning import compute_nodes
from hardpoint.planning.validate import check_assignment
from scaffolded import Installed
from splitting import bounded

NAME = "freshpartitioner"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with Installed(tmp_path_factory.mktemp("new"), NAME) as made:
        yield made


@pytest.fixture(scope="module")
def partitioner(installed: Installed) -> hp.Partitioner:
    return installed.registry().open("partitioner", NAME)


class Branches(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.split(self.a(x), 2, dim=1)
        return torch.cat([left.relu(), right.tanh()], 1) + self.b(x.exp())


@pytest.fixture(scope="module")
def program() -> ExportedProgram:
    return hp.capture(Branches().eval(), (torch.randn(2, 4),)).exported


def random_targets(program: ExportedProgram, draw: random.Random) -> list[hp.TargetInfo]:
    names = [node.name for node in compute_nodes(program)]
    made = []
    for i in range(draw.randint(1, 4)):
        bad = {name for name in names if draw.random() < 0.3}
        if i == 0 and draw.random() < 0.5:
            bad = set()
        support = hp.Support(frozenset(names) - bad, dict.fromkeys(bad, "no such unit"))
        memory = draw.choice([None, 0, 80, 160])  # a layer has 80 bytes of weights
        made.append(hp.TargetInfo(hp.Target(f"t{i}"), hp.Device("0", "it", memory=memory), support))
    return made


def weight_bytes(program: ExportedProgram, answer: hp.Assignment, target: hp.Target) -> int:
    used = set()
    for node in compute_nodes(program):
        if answer.targets[node.name] == target:
            used |= {n.name for n in node.all_input_nodes if n.name.startswith("p_")}
    sizes = {n.name: n.meta["val"].numel() * 4 for n in program.graph.nodes if n.name in used}
    return sum(sizes.values())


@settings(bounded, max_examples=200)
@given(seed=st.integers(0, 2**32))
def test_every_answer_is_valid_within_memory_and_the_same_twice(
    partitioner: hp.Partitioner, program: ExportedProgram, seed: int
) -> None:
    draw = random.Random(seed)
    targets = random_targets(program, draw)
    table = {(n.name, t.target): draw.random() for n in compute_nodes(program) for t in targets}
    costs = hp.Costs(
        lambda node, target: table[node.name, target],
        lambda count, start, end: 0.01 * count,
        basis="random",
    )
    try:
        answer = partitioner.partition(program, targets, "latency", costs)
    except hp.PlanError as error:
        assert error.cause
        return
    check_assignment(answer, program, targets, f"partitioner:{NAME}", "")
    assert answer == partitioner.partition(program, targets, "latency", costs)
    for info in targets:
        if info.device.memory is not None:
            assert weight_bytes(program, answer, info.target) <= info.device.memory
    for info in targets:
        alone = sum(table[n.name, info.target] for n in compute_nodes(program))
        if info.device.memory is None and not info.support.unsupported:
            chosen = sum(table[name, target] for name, target in answer.targets.items())
            assert chosen <= alone + 1e-9


def test_an_operation_with_one_choice_gets_the_memory_before_one_with_several(
    partitioner: hp.Partitioner,
) -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(4, 4, bias=False)
            self.second = torch.nn.Bilinear(4, 4, 1, bias=False)  # as many weights

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x), x)

    program = hp.capture(Two().eval(), (torch.randn(2, 4),)).exported
    names = [node.name for node in compute_nodes(program)]
    everything, first = hp.Support(frozenset(names)), frozenset(names[:1])
    small = hp.TargetInfo(hp.Target("npu"), hp.Device("0", "it", memory=64), everything)
    other = hp.Support(first, dict.fromkeys(names[1:], "no"))
    cpu = hp.TargetInfo(hp.Target("cpu"), hp.Device("0", "it"), other)
    answer = partitioner.partition(program, [small, cpu], "latency", hp.Costs())
    assert str(answer.targets[names[0]]) == "cpu"
    assert list(answer.targets) == names


def test_a_result_that_crosses_twice_to_one_target_is_moved_once(
    partitioner: hp.Partitioner,
) -> None:
    class Twice(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.relu()
            return y.exp() + y.tanh()

    program = hp.capture(Twice().eval(), (torch.randn(4),)).exported
    names = {node.name for node in compute_nodes(program)}
    first = hp.Support(frozenset({"relu"}), dict.fromkeys(names - {"relu"}, "no"))
    targets = [
        hp.TargetInfo(hp.Target("a"), hp.Device("0", "a"), first),
        hp.TargetInfo(hp.Target("b"), hp.Device("0", "b"), hp.Support(frozenset(names))),
    ]
    moved: list[int] = []

    def transfer(count: int, start: hp.Target, end: hp.Target) -> float:
        moved.append(count)
        return 0.0

    partitioner.partition(program, targets, "latency", hp.Costs(transfer_seconds=transfer))
    assert moved == [4 * 4]


def test_the_work_grows_with_the_size_of_the_graph_and_no_faster(
    partitioner: hp.Partitioner,
) -> None:
    class Long(torch.nn.Module):
        def __init__(self, count: int) -> None:
            super().__init__()
            self.count = count

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.count):
                x = x.relu()
            return x

    def asked(count: int) -> int:
        program = hp.capture(Long(count).eval(), (torch.randn(2),)).exported
        names = frozenset(node.name for node in compute_nodes(program))
        targets = [
            hp.TargetInfo(hp.Target(f"t{i}"), hp.Device("0", "it"), hp.Support(names))
            for i in range(3)
        ]
        calls = 0

        def seconds(node: torch.fx.Node, target: hp.Target) -> float:
            nonlocal calls
            calls += 1
            return 1.0

        partitioner.partition(program, targets, "latency", hp.Costs(seconds))
        return calls

    assert asked(200) == 2 * asked(100)
