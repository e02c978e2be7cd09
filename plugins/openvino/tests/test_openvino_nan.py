"""NaN, infinities and rows without a key come out where eager PyTorch has them.

OpenVINO's own kernels lose NaN in comparisons, maxima and pooling; see `hardpoint_openvino.exact`.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

NAN, INF = float("nan"), float("inf")

ELEMENTWISE = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "leaky relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "silu": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "clamp": lambda x: x.clamp(-1, 1),
    "clamp from below and above, one after the other": lambda x: x.clamp(min=-1).clamp(max=1),
    "maximum": lambda x: torch.maximum(x, -x),
    "minimum, NaN second": lambda x: torch.minimum(x * 0 + 1, x),
    "where": lambda x: torch.where(x > 0, x, -x),
    "isnan": torch.isnan,
    "at least": lambda x: x >= 0.5,
    "greater": lambda x: x > 0.5,
    "less": lambda x: x < 0.5,
    "truth": lambda x: x.bool(),
    "nan_to_num": torch.nan_to_num,
    "masked_fill": lambda x: x.masked_fill(x < 0, NAN),
}
ROWS = {
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean(1),
    "amax": lambda x: x.amax(1),
    "amin": lambda x: x.amin(1),
    "values of max": lambda x: x.max(1)[0],
    "max of all": lambda x: x.max(),
    "argmax": lambda x: x.argmax(1),
    "sorted": lambda x: x.sort(1)[0],
    "top 3": lambda x: x.topk(3, 1)[0],
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(1),
    "softmax times a matrix": lambda x: x.softmax(1) @ x.t(),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "max_pool": lambda x: F.max_pool1d(x[None], 2),
    "max_pool, padded": lambda x: F.max_pool1d(x[None], 3, 2, 1),
    "matmul": lambda x: x @ x.t(),
    "any": lambda x: x.any(1),
}


def odd() -> torch.Tensor:
    """NaN, an infinity of each sign, a row of nothing but NaN and one of nothing but -inf."""
    x = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    x[0, 1], x[1, 2], x[2, 3] = NAN, INF, -INF
    x[3], x[4] = -INF, NAN
    return x


def same(got: torch.Tensor, want: torch.Tensor) -> bool:
    return got.dtype == want.dtype and torch.allclose(
        got.double(), want.double(), rtol=1e-4, atol=1e-5, equal_nan=True
    )


@pytest.mark.parametrize("group", [ELEMENTWISE, ROWS], ids=["element by element", "of rows"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nan_and_infinities_come_out_where_eager_has_them(group, precision, export, build):
    x = odd()
    program = export(lambda x: tuple(function(x) for function in group.values()), x)
    results = build(program, precision)(x)
    wrong = []
    for (name, function), got in zip(group.items(), results, strict=True):
        want = function(x)
        if precision == "bf16":  # where the numbers are rounded, NaN and infinities are told
            got, want = got.double().nan_to_num(7, 8, 9), want.double().nan_to_num(7, 8, 9)
            special = (want == 7) | (want == 8) | (want == 9)
            agree = torch.equal(got[special], want[special])
        else:
            agree = same(got, want)
        if not agree:
            wrong.append(name)
    assert wrong == []


def test_what_relu_becomes_is_fused_into_the_layer_before_it(export, build):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    x = torch.randn(1, 3, 8, 8)
    made = build(export(model, x))
    assert made.facts()["operations"] == {"f32": 1}
    x[0, 0, 0, 0] = NAN
    assert torch.equal(made(x)[0].isnan(), model(x).isnan())


def test_the_largest_of_a_window_of_nothing_but_minus_infinity_is_minus_infinity(export, build):
    x = torch.full((1, 2, 4, 4), -INF)
    x[0, 1, 0, 0] = NAN
    [got] = build(export(lambda x: F.max_pool2d(x, 2), x))(x)
    assert same(got, F.max_pool2d(x, 2))


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_the_mask_leaves_no_key_gives_zeros(kind, export, build):
    q, k, v = torch.randn(3, 2, 4, 5, 8).unbind(0)
    keep = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    keep[0, 0, 2] = False
    mask = keep if kind == "bool" else torch.zeros(keep.shape).masked_fill(~keep, -INF)
    program = export(F.scaled_dot_product_attention, q, k, v, mask)
    [got] = build(program)(q, k, v, mask)
    assert same(got, F.scaled_dot_product_attention(q, k, v, mask))
    assert torch.equal(got[0, :, 2], torch.zeros(4, 8))
