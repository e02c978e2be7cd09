"""A provider's configuration is set once, and holds wherever the core opens it."""

import itertools

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint import hookimpl


class Remembering(Provider):
    def __init__(self):
        super().__init__()
        self.configs = []

    @hookimpl
    def hardpoint_backend_open(self, config):
        self.configs.append(dict(config))
        return self.backend


@pytest.fixture
def provider():
    return Remembering()


@pytest.fixture
def registry(provider):
    made = hp.Registry()
    made.add("backend", "eager", provider)
    return made


def test_planning_compiling_and_loading_use_it(registry, provider, tmp_path):
    registry.configure("backend", "eager", {"fast": True})
    program = hp.capture(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),), registry=registry)
    steps = [0]
    plan = hp.plan(program, targets=["eager"], registry=registry)
    steps.append(len(provider.configs))
    model = hp.compile(plan, registry=registry)
    steps.append(len(provider.configs))
    hp.load(model.save(tmp_path / "model.pt2"), registry=registry)
    steps.append(len(provider.configs))
    assert all(after > before for before, after in itertools.pairwise(steps)), steps
    assert all(config == {"fast": True} for config in provider.configs)


def test_what_a_caller_gives_goes_before_it(registry, provider):
    registry.configure("backend", "eager", {"fast": True})
    registry.open("backend", "eager", {})
    registry.open("backend", "eager", {"fast": False})
    assert provider.configs == [{}, {"fast": False}]


def test_without_it_the_configuration_is_empty(registry, provider):
    registry.open("backend", "eager")
    assert provider.configs == [{}]
    assert registry.configuration("backend", "eager") == {}


def test_a_later_change_of_the_callers_mapping_changes_nothing(registry):
    given = {"fast": True}
    registry.configure("backend", "eager", given)
    given["fast"] = False
    assert registry.configuration("backend", "eager") == {"fast": True}


def test_a_name_that_nobody_has_is_met_with_the_nearest(registry):
    with pytest.raises(hp.ProviderNotFound, match="did you mean 'eager'"):
        registry.configure("backend", "eagre", {})


def test_a_child_that_compiles_gets_it_too():
    registry = hp.Registry()
    registry.configure("backend", "cpu", {"operators": 3})
    program = hp.capture(torch.nn.Linear(2, 2).eval(), (torch.ones(1, 2),), registry=registry)
    plan = hp.plan(program, targets=["cpu"])
    with pytest.raises(hp.ConfigError, match="configuration operators is 3"):
        hp.compile(plan, registry=registry)
    registry.configure("backend", "cpu", {"operators": ["transformers"]})
    compiled = hp.compile(plan, registry=registry, isolate=True)
    assert compiled(torch.ones(1, 2)).shape == (1, 2)
