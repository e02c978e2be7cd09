"""NaN and infinities come out where PyTorch has them; ONNX Runtime by itself loses some."""

import math

import ort_programs as shared
import pytest
import torch
import torch.nn.functional as F

NAN, INF = math.nan, math.inf


def _special(*numbers):
    """Ordinary numbers with these among them."""
    x = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7 - 1.5
    for i, number in enumerate(numbers):
        x.view(-1)[5 * i + 1] = number
    return x


KEEPS_NAN = {
    "relu": torch.relu,
    "clamp": lambda x: x.clamp(-1, 1),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)),
    "max": lambda x: x.max(),
    "max along a dimension": lambda x: x.max(1),
    "amax": lambda x: x.amax(0),
    "argmax": lambda x: x.argmax(1),
    "argmin": lambda x: x.argmin(0),
    "topk": lambda x: x.topk(3, 1),
    "max_pool2d": lambda x: F.max_pool2d(x[None, None], 3, 1, 1),
    "max_pool1d": lambda x: F.max_pool1d(x[None], 2),
    "avg_pool2d": lambda x: F.avg_pool2d(x[None, None], 2),
    "softmax": lambda x: x.softmax(1),
    "layer_norm": lambda x: F.layer_norm(x, (6,)),
    "sigmoid": torch.sigmoid,
    "where": lambda x: torch.where(x > 0, x, -x),
    "cumsum": lambda x: x.cumsum(1),
}


@pytest.mark.parametrize("numbers", [(NAN,), (NAN, INF), (-INF, INF, NAN)], ids=str)
@pytest.mark.parametrize("name", KEEPS_NAN)
def test_a_nan_comes_out_where_pytorch_has_it(name, numbers, opened, reasons):
    x = _special(*numbers)
    program = shared.exported(KEEPS_NAN[name], x)
    assert not reasons(program)
    want = KEEPS_NAN[name](x)
    want = list(want) if isinstance(want, tuple) else [want]
    for got, right in zip(opened(program)(x), want, strict=True):
        torch.testing.assert_close(got, right, equal_nan=True)


@pytest.mark.parametrize("number", [NAN, INF])
def test_a_nan_stays_at_its_place_through_layers_that_are_fused(number, opened, reasons):
    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.BatchNorm2d(16)
            self.second, self.third = torch.nn.Conv2d(16, 16, 1), torch.nn.Conv2d(16, 16, 1)

        def forward(self, x):
            x = F.max_pool2d(F.relu(self.norm(self.first(x))), 2)
            x = F.relu6(self.second(x))
            return F.leaky_relu(self.third(x) + x).clamp(-1, 2)

    torch.manual_seed(0)
    model, x = Block().eval(), torch.randn(1, 8, 16, 16)
    program = shared.exported(model, x)
    assert not reasons(program)
    run = opened(program)
    with torch.no_grad():
        torch.testing.assert_close(run(x)[0], model(x))
        x[0, 3, 5, 7] = number
        torch.testing.assert_close(run(x)[0], model(x), equal_nan=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_nan_goes_on_through_an_lstm(bidirectional, opened, reasons):
    class Cells(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = torch.nn.LSTM(3, 4, 2, batch_first=True, bidirectional=bidirectional)

        def forward(self, x):
            return self.cells(x)[0]

    torch.manual_seed(0)
    model, x = Cells().eval(), torch.randn(2, 5, 3)
    program = shared.exported(model, x)
    assert not reasons(program)
    run = opened(program)
    with torch.no_grad():
        torch.testing.assert_close(run(x)[0], model(x))
        x[1, 2, 0] = NAN
        torch.testing.assert_close(run(x)[0], model(x), equal_nan=True)
    assert torch.isnan(run(x)[0]).any()


def test_attention_keeps_a_nan_and_gives_zero_for_rows_that_are_masked_whole(opened, reasons):
    q = torch.randn(1, 2, 4, 8)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    mask[2] = False
    attend = lambda q, mask: F.scaled_dot_product_attention(q, q, q, mask)  # noqa: E731
    program = shared.exported(attend, q, mask)
    assert not reasons(program)
    run = opened(program)
    got = run(q, mask)[0]
    torch.testing.assert_close(got, attend(q, mask))
    assert not got[0, :, 2].any()
    added = torch.zeros(4, 4).masked_fill(~mask, -INF)
    again = shared.exported(attend, q, added)
    assert not reasons(again)
    torch.testing.assert_close(opened(again)(q, added)[0], attend(q, added))
    q[0, 0, 0, 0] = NAN
    lost = torch.isnan(attend(q, mask)) & ~torch.isnan(run(q, mask)[0])
    assert not lost.any()


# From a hundred tokens on the exporter does not compute the mask itself, the graph does.
@pytest.mark.parametrize("tokens", [16, 130])
@pytest.mark.parametrize("way", ["causal", "a mask of the program", "numbers of the program"])
def test_attention_to_what_came_before_is_right_at_every_length(tokens, way, opened, reasons):
    class Attend(torch.nn.Module):
        def __init__(self):
            super().__init__()
            mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
            mask[1] = False  # as on the left of a shorter sentence
            least = torch.finfo(torch.float32).min
            numbers = torch.zeros(tokens, tokens).masked_fill(~mask, least)
            self.register_buffer("mask", mask if way == "a mask of the program" else numbers)

        def forward(self, q):
            if way == "causal":
                return F.scaled_dot_product_attention(q, q, q, is_causal=True)
            return F.scaled_dot_product_attention(q, q, q, attn_mask=self.mask)

    q, attend = torch.randn(1, 2, tokens, 8), Attend()
    program = shared.exported(attend, q)
    assert not reasons(program)
    run = opened(program)
    torch.testing.assert_close(run(q)[0], attend(q))
    q[0, 0, tokens // 2, 0] = NAN
    got, want = run(q)[0], attend(q)
    assert torch.isnan(want[0, 0, tokens // 2]).all()
    assert not (torch.isnan(want) & ~torch.isnan(got)).any()


LEAST = torch.finfo(torch.float32).min


# What models of Hugging Face make: of a row that is hidden whole eager makes a mean, not 0.
@pytest.mark.parametrize(
    "numbers",
    [
        lambda keep: torch.where(keep, 0.0, LEAST),
        lambda keep: torch.where(keep, torch.zeros(()), torch.full((1,), LEAST)),
        lambda keep: torch.zeros(keep.shape).masked_fill(~keep, LEAST),
    ],
)
def test_a_mask_that_hides_by_the_least_number_means_what_it_says(numbers, opened, reasons):
    def attend(q, keep):
        bias = numbers(keep)
        by_hand = torch.softmax(q @ q.transpose(-1, -2) + bias, -1) @ q
        return F.scaled_dot_product_attention(q, q, q, bias), by_hand

    q = torch.randn(1, 2, 6, 8)
    keep = torch.ones(6, 6, dtype=torch.bool).tril()
    keep[2] = False
    program = shared.exported(attend, q, keep)
    assert not reasons(program)
    for got, want in zip(opened(program)(q, keep), attend(q, keep), strict=True):
        torch.testing.assert_close(got, want)
