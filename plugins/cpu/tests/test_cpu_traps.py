"""What AOTInductor's libraries do with inputs that they were not compiled for never reaches a user.

A library checks nothing: it reads beyond the end of what is too short, takes the bits of another
dtype for its own, and ignores strides. Each way in is closed before the library is called.
"""

from __future__ import annotations

import pytest
import torch

import hardpoint as hp

pytestmark = pytest.mark.slow


class Model(torch.nn.Module):
    """Counts its calls, and writes to one of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 16)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x, total):
        self.calls.add_(1)
        y = self.layer(x)
        total.add_(y.sum())
        return y * self.calls


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Model().eval()


@pytest.fixture(scope="module")
def library(model):
    """Compiled ahead of time; rows may be 2 to 64."""
    inputs = (torch.randn(4, 8), torch.zeros(()))
    rows = torch.export.Dim("rows", min=2, max=64)
    program = hp.capture(model, inputs, dynamic={"x": {0: rows}, "total": None})
    plan = hp.plan(program, targets=["cpu"])
    return hp.compile(plan, options={"cpu": {"mode": "aot"}})


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (torch.randn(4, 7), "dimension 1 is 7, it must be 8"),
        (torch.randn(4, 9), "dimension 1 is 9, it must be 8"),
        (torch.randn(1, 8), "dimension 0 (rows) is 1, it must be 2 to 64"),
        (torch.randn(65, 8), "dimension 0 (rows) is 65, it must be 2 to 64"),
        (torch.randn(2, 4, 8), "dimensions"),
        (torch.randn(4, 8, dtype=torch.float64), "its dtype is float64, it must be float32"),
        (torch.randint(0, 9, (4, 8), dtype=torch.int32), "its dtype is int32, it must be float32"),
        (torch.randn(4, 8).to_sparse(), "its layout is torch.sparse_coo, it must be dense"),
        (torch.randn(4, 8, device="meta"), "meta"),
    ],
)
def test_an_input_that_the_library_was_not_compiled_for_is_refused(library, x, words):
    with pytest.raises(hp.InputError) as caught:
        library(x, torch.zeros(()))
    assert words in str(caught.value)
    assert "x" in str(caught.value)


@pytest.mark.parametrize(
    "lie",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.stack([x, x], 2)[:, :, 0],
        lambda x: torch.cat([x, x], 1)[:, 8:],
        lambda x: torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape),
        lambda x: x[:1].expand(5, 8),
        lambda x: x.flip(0),
    ],
)
def test_memory_that_lies_otherwise_gives_the_same_numbers(library, model, lie):
    x = lie(torch.randn(6, 8))
    found = library(x, torch.zeros(()))
    with torch.no_grad():
        calls = (found / model.layer(x)).median().round()
        torch.testing.assert_close(found, model.layer(x) * calls, atol=1e-4, rtol=1e-4)


def test_what_the_model_writes_is_written(library, model):
    x, total = torch.randn(3, 8), torch.zeros(())
    with torch.no_grad():
        layer = model.layer(x)
    first = library(x, total)
    torch.testing.assert_close(total, layer.sum(), atol=1e-4, rtol=1e-4)
    second = library(x, total)
    torch.testing.assert_close(total, 2 * layer.sum(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(second - first, layer, atol=1e-3, rtol=1e-3)  # one call more


def test_a_result_outlives_the_next_call(library):
    first = library(torch.ones(2, 8), torch.zeros(()))
    kept = first.clone()
    library(torch.randn(2, 8), torch.zeros(()))
    assert torch.equal(first, kept)


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the processor has no bf16 products"
)
def test_a_matrix_product_that_pytorch_was_told_to_do_in_bf16_is_told(build):
    program = torch.export.export(torch.nn.Linear(8, 4), (torch.ones(1, 8),), strict=False)
    executable = build(program.run_decompositions({}))
    assert executable.facts()["precision"] == "fp32"
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert executable.facts()["precision"] == "bf16"
        assert executable.facts()["narrowed_by"] == "torch.set_float32_matmul_precision"
    finally:
        torch.set_float32_matmul_precision(before)
    assert executable.facts()["precision"] == "fp32"


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="the processor has no bf16 products"
)
@pytest.mark.parametrize("kind", ["conv", "rnn"])
def test_layers_that_pytorch_was_told_to_do_in_bf16_are_told(kind, build):
    program = torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.ones(1, 3, 8, 8),), strict=False)
    executable = build(program.run_decompositions({}))
    setting = getattr(torch.backends.mkldnn, kind)
    before = setting.fp32_precision
    try:
        setting.fp32_precision = "bf16"
        assert executable.facts()["precision"] == "bf16"
        assert executable.facts()["narrowed_by"] == f"torch.backends.mkldnn.{kind}.fp32_precision"
    finally:
        setting.fp32_precision = before
    assert executable.facts()["precision"] == "fp32"
