"""What OpenVINO was found to compute otherwise than PyTorch, in silence: declined, or right."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
PLACES = torch.tensor([-1, 0, 2, -2])
NUMBERS = torch.tensor([3, -1, 300, 0, -129, 256] * 20)


@pytest.mark.parametrize(
    ("function", "inputs", "reason"),
    [
        (lambda x, i: x[i, i], (X, PLACES), "among several indices, negative ones"),
        (lambda x, i: x.index_put((i, i), x[0, :4]), (X, PLACES), "among several indices"),
        (F.logsigmoid, (X * 100,), "was not proven right on aten.log_sigmoid"),
        (lambda x: F.avg_pool2d(x[None, None], 3, 2, 1, True), (X,), "beyond the padding"),
        (lambda x: F.avg_pool1d(x[None], 3, 2, 1, True), (X,), "beyond the padding"),
        (lambda x: torch.addmm(x[:, :4], x, x.t(), beta=0), (X,), "with beta=0, NaN"),
        (lambda x: torch.arange(0, 1, 0.1) + x[0, 0], (X,), "does not go by whole numbers"),
    ],
)
def test_it_is_declined(function, inputs, reason, refusals):
    assert any(reason in told for told in refusals(function, *inputs).values())


def test_what_is_near_to_it_is_right(refusals, export, build):
    def near(x, places, numbers):
        return (
            x[torch.arange(4), x.argmax(1)],
            x[places],
            x[:, places],
            F.avg_pool2d(x[None, None], 3, 2, 1),
            F.avg_pool2d(x[None, None], 3, 2, 1, True, False),
            torch.addmm(x @ x.t(), x, x.t(), beta=0.5, alpha=2),
            torch.arange(0.0, 10.0, 2) + x[0, 0],
            (x > 0).to(torch.uint8),
            torch.arange(5).to(torch.int8),
            numbers.bool(),
            numbers.to(torch.uint8),
            numbers.to(torch.int32).to(torch.int8).to(torch.uint8),
            numbers.to(torch.int32).bool(),
        )

    given = X, PLACES, NUMBERS
    assert refusals(near, *given) == {}
    for got, want in zip(build(export(near, *given))(*given), near(*given), strict=True):
        assert got.dtype == want.dtype
        assert torch.allclose(got.double(), want.double(), atol=1e-5)


def test_an_input_that_wants_a_gradient_is_taken(export, build):
    made = build(export(lambda x: x * 2, X))
    assert torch.equal(made(X.clone().requires_grad_())[0], X * 2)
