"""Each backend of a plan computes in the arithmetic that was asked of it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint.planning import compute_nodes


class InTurn(hp.Partitioner):
    """One node on the first target, the next on the second, and so on."""

    def partition(self, program, targets, objective, costs):
        nodes = compute_nodes(program)
        count = len(targets)
        return hp.Assignment({n.name: targets[i % count].target for i, n in enumerate(nodes)})


class Chain(nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2


@pytest.fixture
def made():
    """Two backends that share no precision."""
    registry = hp.Registry(path=[])
    registry.add("backend", "npu", Provider("npu", precisions=("fp16", "int8")))
    registry.add("backend", "host", Provider("host", precisions=("fp32", "bf16")))
    return registry


@pytest.fixture
def plan(made):
    captured = hp.capture(Chain().eval(), (torch.randn(3),), registry=made)
    return hp.plan(captured, targets=["npu", "host"], partitioner=InTurn(), registry=made)


def test_a_mapping_gives_each_backend_its_own_and_the_others_fp32(made, plan):
    events = []
    made.observe(events.append)
    model = hp.compile(plan, precision={"npu": "fp16"}, registry=made)
    assert model.verification["precision"] == "npu fp16, host fp32"
    assert model.verification["allowed"] == 0.01
    [event] = [e for e in events if e.kind == "compiled"]
    assert event.data["precision"] == "npu fp16, host fp32"


def test_the_coarsest_in_use_sets_the_limit_of_the_whole(made, plan):
    model = hp.compile(plan, precision={"npu": "int8", "host": "bf16"}, registry=made)
    assert model.verification["allowed"] == 0.1


def test_a_backend_left_out_that_has_no_fp32_is_named(made, plan):
    with pytest.raises(hp.CompileError, match="npu does not compute in fp32") as caught:
        hp.compile(plan, precision={"host": "bf16"}, registry=made)
    assert caught.value.remedy == "choose one of fp16, int8, or another target"


def test_auto_without_a_shared_precision_says_how_to_name_one_for_each(made, plan):
    with pytest.raises(hp.CompileError) as caught:
        hp.compile(plan, precision="auto", registry=made)
    assert str(caught.value) == (
        "no precision compiles and verifies\n"
        "  cause: the plan's backends share no precision\n"
        "  remedy: give each backend its own, e.g. precision={'cpu': 'fp32'}"
    )


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"hots": "fp32"}, ["precision names 'hots', which is no backend", "did you mean 'host'?"]),
        ({"npu": "fp61"}, ["'fp61' is no precision", "did you mean 'fp16'?"]),
        ({"npu": "auto"}, ["'auto' is no precision"]),
        ("outo", ["'outo' is no precision", "did you mean 'auto'?"]),
        (16, ["16 is no precision"]),
    ],
)
def test_what_is_no_precision_is_explained(made, plan, asked, words):
    with pytest.raises(hp.ConfigError) as caught:
        hp.compile(plan, precision=asked, registry=made)
    for part in words:
        assert part in str(caught.value)
