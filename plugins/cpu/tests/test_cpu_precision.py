"""What bf16 narrows, and what it must leave alone."""

from __future__ import annotations

import pytest
import torch

from hardpoint import CompileError
from hardpoint_cpu import narrow_ops


class Fn(torch.nn.Module):
    def __init__(self, function, **parameters):
        super().__init__()
        self.function = function
        for name, tensor in parameters.items():
            self.register_parameter(name, torch.nn.Parameter(tensor))

    def forward(self, *inputs):
        return self.function(self, *inputs)


def program(function, *inputs, **parameters):
    model = Fn(function, **parameters)
    return torch.export.export(model, inputs, strict=False).run_decompositions({})


def test_the_arithmetic_is_really_done_in_bf16(build):
    x = torch.tensor([1.0, 257.0])
    found = build(program(lambda _, x: (x + 0.5,), x), "bf16")(x)[0]
    assert found.tolist() == [1.5, 256.0]  # 257 has nine bits
    assert found.dtype == torch.float32


def test_weights_are_cast_when_compiled_and_normalization_keeps_its_own(case, compiled):
    weights = compiled(case("mlp").program(), "bf16").weights
    assert {name: tensor.dtype for name, tensor in weights.items()} == {
        "first.weight@bf16": torch.bfloat16,
        "first.bias@bf16": torch.bfloat16,
        "norm.weight": torch.float32,
        "norm.bias": torch.float32,
        "last.weight@bf16": torch.bfloat16,
        "last.bias@bf16": torch.bfloat16,
    }


def test_a_float16_program_keeps_its_dtype_and_its_infinities(build):
    """Its numbers are all within bfloat16's range: nothing is to be saturated."""
    x = torch.tensor([[1.0, float("inf")]], dtype=torch.float16)
    weight = torch.tensor([[2.0, 0.5]], dtype=torch.float16)
    found = build(program(lambda m, x: (x * m.weight, x @ m.weight.T), x, weight=weight), "bf16")(x)
    assert [f.dtype for f in found] == [torch.float16, torch.float16]
    assert [f.tolist() for f in found] == [[[2.0, float("inf")]], [[float("inf")]]]


def test_running_statistics_of_batch_norm_stay_exact(case, compiled):
    weights = compiled(case("conv").program(), "bf16").weights
    assert weights["norm.running_var"].dtype == torch.float32


def test_a_row_that_is_masked_by_the_least_float32_is_not_nan(build):
    scores = torch.randn(2, 4)
    keep = torch.tensor([[True, False, True, True], [False] * 4])
    least = torch.finfo(torch.float32).min
    ways = {
        "a scalar": lambda _, s, k: (s.masked_fill(~k, least).softmax(-1),),
        "a mask made of constants": lambda _, s, k: (
            (s + torch.zeros(k.shape).masked_fill(~k, least)).softmax(-1),
        ),
        "where": lambda _, s, k: (torch.where(k, s, torch.full((), least)).softmax(-1),),
    }
    for name, way in ways.items():
        found = build(program(way, scores, keep), "bf16")(scores, keep)[0]
        torch.testing.assert_close(found, way(None, scores, keep)[0], atol=1e-2, rtol=0, msg=name)


def test_a_mask_that_comes_in_as_an_input_is_not_made_infinite(build):
    scores, least = torch.randn(2, 4), torch.finfo(torch.float32).min
    mask = torch.tensor([[0.0, least, 0.0, 0.0], [least] * 4])
    found = build(program(lambda _, s, m: ((s + m).softmax(-1),), scores, mask), "bf16")
    torch.testing.assert_close(
        found(scores, mask)[0], (scores + mask).softmax(-1), atol=1e-2, rtol=0
    )


def test_true_infinities_and_nan_stay_what_they_are(build):
    x = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0])
    found = build(program(lambda _, x: (x * 2,), x), "bf16")(x)[0]
    assert found[:2].tolist() == [torch.inf, -torch.inf]
    assert found[2].isnan()
    assert found[3] == 2


def test_positions_stay_exact_until_they_meet_the_data(build):
    """Rotary embeddings at position 4001 are noise if the position is rounded to bfloat16."""

    def rotate(_, x):
        angle = torch.arange(4000, 4008, dtype=torch.float32)[:, None] * torch.tensor([1.0, 0.01])
        return (x * angle.cos(),)

    x = torch.ones(8, 2)
    found = build(program(rotate, x), "bf16")(x)[0]
    torch.testing.assert_close(found, rotate(None, x)[0], atol=5e-3, rtol=0)


def test_counts_are_exact(build):
    x = torch.ones(1000)
    found = build(program(lambda _, x: ((x > 0).sum() / 1, (x > 0).cumsum(0)), x), "bf16")(x)
    assert found[0] == 1000
    assert found[1][-1] == 1000


def test_bits_are_looked_at_in_their_own_dtype(build):
    x = torch.randn(4)
    found = build(program(lambda _, x: ((x * 1).view(torch.int32),), x), "bf16")(x)[0]
    assert found.dtype == torch.int32
    assert found.shape == (4,)


def test_float64_stays_float64(build):
    x = torch.tensor([1.0 + 2**-40], dtype=torch.float64)
    found = build(program(lambda _, x: (x * 3,), x), "bf16")(x)[0]
    assert torch.equal(found, x * 3)


def test_random_numbers_are_those_that_float32_would_draw(build):
    x = torch.ones(64)
    made = build(program(lambda _, x: (torch.rand_like(x * 1),), x), "bf16")
    torch.manual_seed(3)
    found = made(x)[0]
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(64))


def test_dtypes_given_as_arguments_follow(build):
    def way(self, x):
        return (x @ torch.full((4, 4), 0.5, dtype=torch.float32) + x.to(torch.float32),)

    x = torch.randn(2, 4)
    found = build(program(way, x), "bf16")(x)[0]
    torch.testing.assert_close(found, way(None, x)[0], atol=3e-2, rtol=3e-2)


def test_a_node_that_cannot_be_cast_is_named(compiled, monkeypatch):
    monkeypatch.setattr(narrow_ops, "_NARROW", narrow_ops._NARROW | {"linalg_inv_ex"})
    x = torch.eye(3)
    with pytest.raises(CompileError) as caught:
        compiled(program(lambda _, x: (torch.linalg.inv_ex(x * 2)[0],), x), "bf16")
    text = str(caught.value)
    assert "node 'linalg_inv_ex' (aten.linalg_inv_ex.default) cannot be computed in bf16" in text
    assert "provider: backend:cpu (from hardpoint-cpu" in text
    assert "remedy: use precision 'fp32' for this segment" in text


def test_what_has_no_bf16_kernel_runs_in_float32(build):
    x = torch.eye(3) * 4
    found = build(program(lambda _, x: (torch.linalg.inv(x * 2),), x), "bf16")(x)[0]
    assert torch.equal(found, torch.eye(3) / 8)


def test_the_same_rewriting_serves_float16_for_devices_that_have_it():
    """It is the GPU backends' fp16; the CPU backend itself does not offer it."""
    from hardpoint_cpu.precision import to_half
    from hardpoint_cpu.segment import from_program

    least = torch.finfo(torch.float32).min
    x, weight = torch.tensor([[1.0, 2049.0, -3.0]]), torch.ones(3, 3)
    exported = program(
        lambda m, x: (x @ m.weight, x + 0.5, x.masked_fill(x < 0, least)), x, weight=weight
    )
    segment = to_half(from_program(exported), torch.float16)
    product, sum_, masked = segment.module()(x)
    assert [name for name, _ in segment.weights.values()] == ["weight@fp16"]
    assert product.dtype == sum_.dtype == torch.float32
    assert sum_.tolist() == [[1.5, 2048.0, -2.5]]  # 2049 has twelve bits
    assert masked.tolist() == [[1.0, 2048.0, -65504.0]]  # the least there is, not -inf


def test_a_bfloat16_program_keeps_its_dtype_where_float16_is_asked_for():
    from hardpoint_cpu.precision import to_half
    from hardpoint_cpu.segment import from_program

    x = torch.tensor([1e38], dtype=torch.bfloat16)
    segment = to_half(from_program(program(lambda _, x: (x * 2,), x)), torch.float16)
    assert torch.isfinite(segment.module()(x)[0]).all()
