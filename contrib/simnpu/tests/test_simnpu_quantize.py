"""int8: how it is calibrated, what it loses, and what it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hardpoint import CompileError, CompileOptions
from hardpoint_contrib_simnpu.kernels import KERNELS
from hardpoint_contrib_simnpu.quantize import per_channel, scale_of


def test_each_channel_of_a_weight_uses_all_of_int8():
    weight = np.array([[1.0, -2.0], [0.001, 0.0005], [0.0, 0.0]], np.float32)
    steps, scales = per_channel(weight)
    assert steps.tolist() == [[64, -127], [127, 64], [0, 0]]
    np.testing.assert_allclose(steps * scales[:, None], weight, atol=0.008)
    assert scales[2] == 1


def test_the_least_numbers_vanish_and_do_not_divide_by_zero():
    steps, scales = per_channel(np.array([[1e-45, 0]], np.float32))
    assert (steps.tolist(), scales.tolist()) == ([[0, 0]], [1.0])


def test_a_scale_of_nothing_is_one():
    assert (scale_of(0.0), scale_of(254.0)) == (1.0, 2.0)


def test_quantizing_rounds_clamps_and_turns_nan_into_zero():
    given = np.array([0.4, 0.6, -1e4, np.inf, np.nan], np.float16)
    assert KERNELS["QUANT"]([given], (1.0,)).tolist() == [0, 1, -127, 127, 0]


def test_int8_sums_are_exact_as_in_an_int32_accumulator():
    rng = np.random.default_rng(0)
    a = rng.integers(-127, 128, (3, 5000), np.int8)
    b = rng.integers(-127, 128, (4, 5000), np.int8)
    ones = np.ones(4, np.float32)
    exact = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.array_equal(KERNELS["MATMUL8"]([a, b, ones], (1.0,)), exact.astype(np.float32))
    image, filters = a[:, :100].reshape(3, 10, 10), b[:, :27].reshape(4, 3, 3, 3)
    numbers = (1, 1, 1, 1, 1, 1, 1.0)
    wide = [torch.from_numpy(t.astype(np.float64)) for t in (image, filters)]
    expected = F.conv2d(wide[0][None], wide[1], padding=1)[0].numpy()
    assert np.array_equal(KERNELS["CONV2D8"]([image, filters, ones], numbers), expected)


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.second = torch.nn.Conv2d(16, 16, 3, stride=2, groups=2)
        self.first = torch.nn.Linear(16 * 3 * 3, 64)
        self.last = torch.nn.Linear(64, 10)

    def forward(self, x):
        y = F.max_pool2d(torch.relu(self.conv(x)), 2)
        y = torch.relu(self.second(y)).flatten(1)
        return self.last(F.gelu(self.first(y)))


def test_a_network_in_int8_stays_close_on_inputs_it_was_not_calibrated_on(build):
    module, examples, fresh = Network(), torch.randn(8, 3, 16, 16), torch.randn(8, 3, 16, 16)
    with torch.no_grad():
        want = module(fresh)
    errors = {}
    for precision in ("fp16", "int8"):
        [got] = build(module, examples, precision=precision)(fresh)
        errors[precision] = float((got - want).norm() / want.norm())
        assert torch.equal(got.argmax(1), want.argmax(1))
    assert errors["fp16"] < 1e-3 < errors["int8"] < 3e-2


def test_each_tensor_is_calibrated_on_its_own(build, function):
    """A large input and a small one in between: one scale for both would lose the small one."""
    module = function(
        lambda x, w, v: F.linear(F.linear(x, w), v), torch.eye(8) * 1e-3, torch.eye(8) * 1e3
    )
    x = torch.linspace(-100, 100, 16).reshape(2, 8)
    [got] = build(module, x, precision="int8")(x)
    assert float((got - x).abs().max()) < 2


@pytest.mark.parametrize(
    ("examples", "cause"),
    [
        ((), "the segment has 1 inputs, and the example inputs are none"),
        ((torch.ones(3, 4),), "the segment has 1 inputs, and the example inputs are float32[3, 4]"),
        (
            (torch.full((2, 4), 1e6),),
            "'flat' is infinite or NaN on the example inputs, in fp16",
        ),
        ((torch.full((2, 4), float("nan")),), "is infinite or NaN"),
    ],
)
def test_int8_without_good_examples_is_refused(backend, export, function, examples, cause):
    program = export(function(F.linear, torch.ones(3, 4)), torch.ones(2, 4))
    with pytest.raises(CompileError, match="int8 cannot be calibrated") as caught:
        backend.compile(
            program,
            backend.devices()[0],
            CompileOptions(precision="int8", example_inputs=examples),
        )
    assert cause.removeprefix("'flat' ") in caught.value.cause
    assert caught.value.remedy


def test_without_a_weight_int8_needs_no_examples(backend, export, function):
    program = export(function(torch.relu), torch.ones(2))
    options = CompileOptions(precision="int8")
    made = backend.compile(program, backend.devices()[0], options)
    assert made.metadata["precision"] == "int8"


def test_a_weight_that_int8_cannot_hold_is_refused(backend, export, function):
    weight = torch.ones(3, 4)
    weight[1, 2] = float("inf")
    x = torch.ones(2, 4)
    options = CompileOptions(precision="int8", example_inputs=(x,))
    with pytest.raises(CompileError) as caught:
        backend.compile(export(function(F.linear, weight), x), backend.devices()[0], options)
    assert str(caught.value).splitlines() == [
        "the segment cannot be compiled for simnpu",
        "  provider: backend:simnpu (from hardpoint-contrib-simnpu 0.1.0)",
        "  cause: linear (aten.linear.default): a weight is infinite or NaN, which int8 cannot hold",
        "  remedy: leave a part of it to another target",
    ]
