"""A package whose backend loses its device while it serves: `hp.load(fallback=)` goes on."""

from __future__ import annotations

import pytest
import torch

import hardpoint as hp
import hardpoint_cpu.plugin as cpu
from hardpoint import Executable, hookimpl


class Loses(Executable):
    """The cpu backend's executable, until its device is lost."""

    def __init__(self, inner, switch):
        self.inner, self.switch = inner, switch

    def __call__(self, *inputs):
        if self.switch:
            raise hp.DeviceLost("the link is down")
        return self.inner(*inputs)


class Backend(hp.Backend):
    def __init__(self, switch):
        self.inner, self.switch = cpu.hardpoint_backend_open({}), switch

    def devices(self):
        return self.inner.devices()

    def support(self, program, device):
        return self.inner.support(program, device)

    def compile(self, program, device, options):
        return self.inner.compile(program, device, options)

    def load(self, artifact, device):
        return Loses(self.inner.load(artifact, device), self.switch)


class Plugin:
    def __init__(self, switch):
        self.switch = switch
        self.hardpoint_backend_info = cpu.hardpoint_backend_info
        self.hardpoint_backend_probe = cpu.hardpoint_backend_probe

    @hookimpl
    def hardpoint_backend_open(self, config):
        return Backend(self.switch)


class Cached(torch.nn.Module):
    """Two results, a step of state, two operators that do not commute."""

    def __init__(self):
        super().__init__()
        self.near = torch.nn.Linear(8, 8)
        self.register_buffer("rows", torch.zeros(4, 8))

    def forward(self, x):
        self.rows.copy_(torch.roll(self.rows, 1, 0))
        self.rows[0] = self.near(x)[0]
        return torch.relu(self.rows @ x.T), x.sum()


class Halves(hp.Partitioner):
    """The first half of the nodes on one target, the rest on the other."""

    def partition(self, program, targets, objective, costs):
        from hardpoint.planning import compute_nodes

        nodes = compute_nodes(program)
        return hp.Assignment(
            {n.name: targets[i >= len(nodes) // 2].target for i, n in enumerate(nodes)}
        )


@pytest.fixture
def served(tmp_path):
    """A registry with the backend that can be lost, its switch, a package, and an eager peer."""
    torch.manual_seed(0)
    registry, switch = hp.Registry(), []
    registry.add("backend", "link", Plugin(switch))
    peer = Cached().eval()
    program = hp.capture(like(peer), (torch.randn(3, 8),), dynamic={"x": {0: "n"}}, registry=registry)  # fmt: skip
    plan = hp.plan(program, targets=["link", "cpu"], partitioner=Halves(), registry=registry)
    model = hp.compile(plan, registry=registry)
    return registry, switch, model.save(tmp_path / "m.pt2"), peer


def like(peer):
    """A module like `peer`, with a state of its own."""
    module = Cached().eval()
    module.load_state_dict(peer.state_dict())
    return module


def same(model, peer, x):
    with torch.no_grad():
        for got, want in zip(model(x), peer(x), strict=True):
            torch.testing.assert_close(got, want)


def test_a_loaded_model_goes_on_from_its_own_program_and_keeps_its_state(served):
    registry, switch, package, peer = served
    model = hp.load(package, fallback="cpu", registry=registry)
    for n in (2, 3):
        same(model, peer, torch.randn(n, 8))
    switch.append("lost")
    with pytest.warns(hp.HardpointWarning, match="falls back from link to cpu in fp32: the link"):
        same(model, peer, torch.randn(5, 8))
    for n in (2, 6):
        same(model, peer, torch.randn(n, 8))
    assert {str(s.target) for s in model.segments} == {"cpu"}
    assert [row["from"] for row in model.fell_back] == ["link"]


def test_what_is_saved_afterwards_needs_the_lost_target_no_more(served, tmp_path):
    registry, switch, package, peer = served
    model = hp.load(package, fallback="cpu", registry=registry)
    switch.append("lost")
    with pytest.warns(hp.HardpointWarning):
        same(model, peer, torch.randn(2, 8))
    again = hp.load(model.save(tmp_path / "again.pt2"))
    assert again.verification["fell_back"][0]["reason"] == "the link is down"
    assert {row["target"] for row in again.facts.plan["segments"]} == {"cpu"}
    same(again, peer, torch.randn(3, 8))
    assert all(d.error < 1e-4 for d in again.verify().values())


def test_without_a_fallback_a_loaded_model_raises_the_fault(served):
    registry, switch, package, _ = served
    model = hp.load(package, registry=registry)
    switch.append("lost")
    with pytest.raises(hp.DeviceLost, match="fallback="):
        model(torch.randn(2, 8))


def test_a_model_recompiled_at_load_tells_that_it_fell_back(served):
    *_, package, peer = served
    with pytest.warns(hp.HardpointWarning, match=r"m\.pt2 falls back to cpu: .*link"):
        model = hp.load(package, fallback="cpu", registry=hp.Registry())
    assert [row["to"] for row in model.fell_back] == [["cpu"]]
    same(model, peer, torch.randn(2, 8))


def test_a_typing_error_in_a_fallback_is_told_when_the_package_is_loaded(served):
    registry, _, package, _ = served
    with pytest.raises(hp.ProviderNotFound, match="backend:cqu"):
        hp.load(package, fallback="cqu", registry=registry)


def test_a_plan_that_is_not_of_its_program_is_a_reason_and_no_crash(served):
    registry, switch, package, _ = served
    model = hp.load(package, fallback="cpu", registry=registry)
    model.facts.plan["segments"][0]["nodes"].append("no_such_node")
    switch.append("lost")
    with pytest.raises(hp.DeviceLost, match=r"cannot be cut out of .* again: KeyError"):
        model(torch.randn(2, 8))
