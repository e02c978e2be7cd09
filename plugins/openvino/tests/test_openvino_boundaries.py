"""Between PyTorch and OpenVINO: whose memory is read and written, and what a caller gets back."""

from __future__ import annotations

import pytest
import torch

import hardpoint as hp


class Fn(torch.nn.Module):
    """A function as a model."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def model_of(function, x, dynamic=None, precision="fp32"):
    """Through the whole runtime, on OpenVINO alone."""
    program = hp.capture(Fn(function).eval(), (x,), dynamic=dynamic)
    model = hp.compile(hp.plan(program, targets=["openvino"]), precision=precision)
    assert [str(segment.target) for segment in model.segments] == ["openvino"]
    return model


def twice(x):
    return x + x


def as_float(x):
    return x.to(torch.float32)


@pytest.mark.parametrize(
    ("dtype", "function", "precision"),
    [
        (torch.float32, twice, "fp32"),
        (torch.bfloat16, twice, "bf16"),  # read and written by ways of its own
        (torch.int64, as_float, "fp32"),
        (torch.int32, as_float, "fp32"),
        (torch.uint8, as_float, "fp32"),
        (torch.bool, torch.logical_not, "fp32"),
    ],
)
def test_inputs_are_read_where_they_lie_and_results_written_where_they_stay(
    dtype, function, precision, device
):
    if precision == "bf16" and "BF16" not in device.properties["computes_in"]:
        pytest.skip("this processor has no bf16")
    x = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    model = model_of(function, x, precision=precision)
    result = model(x)
    assert torch.equal(result, function(x))
    assert model.segments[0].copies.counts() == {}
    [request] = model.segments[0].executable._free
    assert request.get_output(0).data.ctypes.data == result.data_ptr()
    # The request runs again as the call has left it: it sees what was written to the input since,
    # and its results come up in the tensor that the caller has.
    before = result.clone()
    x.copy_(x.flip(0, 1))
    request.infer(share_outputs=True)
    assert torch.equal(result, function(x))
    assert not torch.equal(result, before)


def test_the_next_call_has_memory_of_its_own():
    x = torch.randn(2, 3)
    model = model_of(twice, x)
    first = model(x)
    second = model(-x)
    assert first.data_ptr() != second.data_ptr()
    assert torch.equal(first, x + x)


def test_none_and_numbers_among_the_results_are_where_the_model_put_them():
    def nested(x):
        doubled = x * 2
        pair = (x.neg(), [3, doubled + 1, None])
        return {"first": doubled, "none": None, "pair": pair, "rows": x.shape[0], "count": 7}

    model = model_of(nested, torch.randn(2, 3), dynamic={"x": {0: "rows"}})
    for rows in (2, 5):
        x = torch.randn(rows, 3)
        found = model(x)
        assert list(found) == ["first", "none", "pair", "rows", "count"]
        assert (found["none"], found["rows"], found["count"]) == (None, rows, 7)
        assert torch.equal(found["first"], x * 2)
        assert isinstance(found["pair"], tuple)
        negative, [three, larger, nothing] = found["pair"]
        assert (three, nothing) == (3, None)
        assert torch.equal(negative, -x)
        torch.testing.assert_close(larger, x * 2 + 1)
