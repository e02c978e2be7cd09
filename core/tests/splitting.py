"""What tests of capture, split and run share: captured cases, random plans, comparison with eager."""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
from collections import OrderedDict
from collections.abc import Mapping

import torch
from hypothesis import HealthCheck, settings, strategies as st

import hardpoint as hp
from eager_backend import Provider
from hardpoint.planning import compute_nodes
from hf_models import CASES as ARCHITECTURES
from models import Case
from small_models import CASES as SMALL

CASES: dict[str, Case] = {case.name: case for case in (*SMALL, *ARCHITECTURES)}
TARGETS = ("a", "b", "c", "d")


def registry(**options) -> hp.Registry:
    """Four eager backends, which keep strides unless told otherwise."""
    made = hp.Registry(path=[])
    for name in TARGETS:
        made.add("backend", name, Provider(name, **options))
    return made


@functools.cache
def program(name: str) -> hp.Program:
    case = CASES[name]
    args, kwargs = case.call(0)
    with torch.random.fork_rng():
        return hp.capture(case.model(), args, kwargs, dynamic=case.dynamic, name=name, registry=hp.Registry(path=[]))  # fmt: skip


class Scatter(hp.Partitioner):
    """Runs of nodes on targets drawn at random: any assignment can come out."""

    def __init__(self, seed: int, targets: int, run: int) -> None:
        self.random, self.targets, self.run = random.Random(seed), targets, run

    def partition(self, program, targets, objective, costs):
        chosen: dict[str, hp.Target] = {}
        target, left = targets[0].target, 0
        for node in compute_nodes(program):
            if not left:
                target = self.random.choice(list(targets)[: self.targets]).target
                left = self.random.randint(1, self.run)
            chosen[node.name], left = target, left - 1
        return hp.Assignment(chosen)


bounded = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# The simplest example, which is tried first, is a hard one: three targets, a change at any node.
scatters = st.builds(
    Scatter, st.integers(0, 2**32), st.sampled_from([3, 2, 4, 1]), st.sampled_from([1, 3, 20])
)


def leaves(value: object) -> list[object]:
    """What a nested result holds, in order, seen through any container."""
    if isinstance(value, Mapping):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if dataclasses.is_dataclass(value):
        return [leaf for f in dataclasses.fields(value) for leaf in leaves(getattr(value, f.name))]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def assert_same(got: object, want: object, exact: bool, what: str) -> None:
    """Equal to the last bit, or within rounding; of one structure."""
    plain = dict if isinstance(want, OrderedDict) and not dataclasses.is_dataclass(want) else type(want)  # fmt: skip
    assert type(got) is plain, what
    found, expected = leaves(got), leaves(want)
    assert len(found) == len(expected), what
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if not isinstance(b, torch.Tensor):
            assert a == b, f"{what}: leaf {i}"
            assert type(a) is type(b), f"{what}: leaf {i}"
            continue
        assert isinstance(a, torch.Tensor), f"{what}: leaf {i}"
        tolerance = 0.0 if exact else 1e-5
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=False,
            msg=lambda text, i=i: f"{what}: leaf {i}: {text}",
        )  # fmt: skip


def assert_like_eager(case: Case, compiled: hp.CompiledModel, exact: bool, calls: int = 3) -> None:
    """Call both in a row with other sizes; compare results, changed inputs and state."""
    model = case.model()
    for i in range(calls):
        args, kwargs = case.call(i)
        our_args, our_kwargs = copy.deepcopy((args, kwargs))
        with torch.no_grad():
            torch.manual_seed(i)
            want = model(*args, **kwargs)
        torch.manual_seed(i)
        got = compiled(*our_args, **our_kwargs)
        assert_same(got, want, exact, f"{case.name}, call {i}")
        assert_same((our_args, our_kwargs), (args, kwargs), exact, f"{case.name}, inputs of call {i}")  # fmt: skip
    state = dict(model.named_buffers())
    for name in {name for _, name in compiled.schedule.state_writes}:
        assert_same(compiled.held[name], state[name], exact, f"{case.name}, state {name}")
