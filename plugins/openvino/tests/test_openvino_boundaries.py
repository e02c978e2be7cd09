"""Between PyTorch and OpenVINO: whose memory is read and written, and what a caller gets back."""

from __future__ import annotations

import gc
import weakref

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


each_dtype = pytest.mark.parametrize(
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
SMALL = torch.tensor([[0, 1, 2], [3, 4, 5]])


@pytest.fixture
def called(device):
    """A model's one request after a call with ``numbers``, the input, and the result."""

    def call(numbers, dtype, function, precision):
        if precision == "bf16" and "BF16" not in device.properties["computes_in"]:
            pytest.skip("this processor has no bf16")
        x = numbers.to(dtype)
        model = model_of(function, x, precision=precision)
        result = model(x)
        assert torch.equal(result, function(x))
        assert model.segments[0].copies.counts() == {}
        [request] = model.segments[0].executable._free
        return model, request._request, x, result

    return call


@each_dtype
def test_inputs_of_a_size_are_read_where_they_lie_and_results_written_where_they_stay(
    dtype, function, precision, called
):
    _, request, x, result = called(SMALL.repeat(64, 128), dtype, function, precision)
    assert request.get_output_tensor(0).data.ctypes.data == result.data_ptr()
    # The request runs again as the call has left it: it sees what was written to the input since,
    # and its results come up in the tensor that the caller has.
    before = result.clone()
    x.copy_(x.flip(0, 1))
    request.infer(share_outputs=True)
    assert torch.equal(result, function(x))
    assert not torch.equal(result, before)


@each_dtype
def test_small_inputs_and_results_are_copied_into_and_out_of_the_request(
    dtype, function, precision, called
):
    model, request, x, result = called(SMALL, dtype, function, precision)
    read, written = request.get_input_tensor(0).data.ctypes.data, request.get_output_tensor(0).data
    assert read != x.data_ptr()
    assert written.ctypes.data != result.data_ptr()
    before = result.clone()
    turned = x.flip(0, 1)
    assert torch.equal(model(turned), function(turned))
    assert torch.equal(result, before)
    # OpenVINO was told of these places once.
    assert request.get_input_tensor(0).data.ctypes.data == read
    assert request.get_output_tensor(0).data.ctypes.data == written.ctypes.data


def test_a_small_input_may_have_strides_and_come_in_and_out_of_inference_mode():
    x = torch.randn(3, 2)
    with torch.inference_mode():  # the request and its places are made here
        model = model_of(twice, torch.randn(2, 3))
        inside = model(torch.ones(2, 3))
    assert torch.equal(inside, torch.full((2, 3), 2.0))
    for given in (x.t(), torch.ones(3).expand(2, 3), torch.randn(2, 3)):
        assert torch.equal(model(given), given + given)


def test_small_and_large_ones_in_one_call():
    def both(x):
        return x * 2, x.sum(), x[:, :1] + 1, x - 1

    x = torch.arange(20_000.0).reshape(100, 200) / 20_000
    model = model_of(both, x)
    results = [model(given) for given in (x, -x)]
    for given, found in zip((x, -x), results, strict=True):
        for one, wanted in zip(found, both(given), strict=True):
            torch.testing.assert_close(one, wanted)


def test_a_refused_input_leaves_the_request_for_the_next_call():
    for x in (SMALL, SMALL.repeat(64, 128)):
        model = model_of(as_float, x)
        model(x)
        executable = model.segments[0].executable
        before = list(executable._free)
        with pytest.raises(hp.InputError, match="beyond 32 bits"):
            model(x + 2**40)
        assert executable._free == before
        assert torch.equal(model(x), x.float())


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


def test_a_closed_model_lets_go_of_its_requests_at_once():
    """A request holds threads of OpenVINO's: none waits for Python to collect garbage."""
    model = model_of(twice, torch.randn(2, 3))
    model(torch.randn(2, 3))
    [request] = (weakref.ref(one) for one in model.segments[0].executable._free)
    gc.disable()
    try:
        model.close()
        assert request() is None
    finally:
        gc.enable()
