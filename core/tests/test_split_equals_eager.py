"""Any assignment of nodes to targets gives what the model gives in eager PyTorch."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings

import hardpoint as hp
from hf_models import CASES as ARCHITECTURES
from small_models import CASES as SMALL
from splitting import (
    CASES,
    TARGETS,
    Scatter,
    assert_like_eager,
    bounded,
    program,
    registry,
    scatters,
)

KEEPING, CONTIGUOUS = registry(strided=True), registry(strided=False)


@pytest.fixture(autouse=True)
def training_is_meant():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is in training mode", hp.HardpointWarning)
        yield


def compiled(name: str, partitioner: hp.Partitioner, mounted: hp.Registry) -> hp.CompiledModel:
    plan = hp.plan(program(name), targets=TARGETS, partitioner=partitioner, registry=mounted)
    return hp.compile(plan, registry=mounted)


@pytest.mark.parametrize("name", [case.name for case in SMALL])
@settings(bounded, max_examples=8)
@given(partitioner=scatters)
def test_any_split_of_a_small_model_is_bit_equal_to_eager(name, partitioner):
    assert_like_eager(CASES[name], compiled(name, partitioner, KEEPING), exact=True)


@pytest.mark.parametrize("name", [case.name for case in SMALL])
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_any_split_for_backends_that_want_contiguous_inputs_equals_eager(name, partitioner):
    assert_like_eager(CASES[name], compiled(name, partitioner, CONTIGUOUS), exact=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in ARCHITECTURES])
@settings(bounded, max_examples=4)
@given(partitioner=scatters)
def test_any_split_of_a_real_architecture_is_bit_equal_to_eager(name, partitioner):
    assert_like_eager(CASES[name], compiled(name, partitioner, KEEPING), exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "swin", "whisper"])
@settings(bounded, max_examples=3)
@given(partitioner=scatters)
def test_real_architectures_on_backends_that_want_contiguous_inputs_equal_eager(name, partitioner):
    assert_like_eager(CASES[name], compiled(name, partitioner, CONTIGUOUS), exact=False)


def test_random_numbers_are_drawn_in_the_order_of_the_model():
    case, one = CASES["random_numbers"], registry()
    split = compiled("random_numbers", Scatter(1, 4, 1), one)
    assert len(split.segments) > 3
    assert_like_eager(case, split, exact=True)
    torch.manual_seed(5)
    first = split(torch.zeros(2, 4))
    again = split(torch.zeros(2, 4))
    assert not torch.equal(first[0], again[0])
