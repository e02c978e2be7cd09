"""LSTM and GRU as sequences of OpenVINO's own."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("kind", [torch.nn.LSTM, torch.nn.GRU])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "bias": False, "batch_first": True, "bidirectional": True},
    ],
    ids=["one layer", "two layers, both ways", "without biases"],
)
def test_recurrent_layers_are_sequences_of_openvino(kind, options, refusals, export, build):
    model = kind(5, 7, **options)
    x = torch.randn(3, 4, 5)
    batch = 0 if options.get("batch_first") else 1
    dynamic = ({batch: torch.export.Dim("batch", min=1, max=9)},)

    def flat(x):
        y, states = model(x)
        return (y, *states) if isinstance(states, tuple) else (y, states)

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x):
            return flat(x)

    program = export(Flat(), x, dynamic=dynamic)
    made = build(program)
    for given in (x, torch.cat([x, x], batch)):
        for got, want in zip(made(given), flat(given), strict=True):
            assert torch.allclose(got, want, atol=1e-5)
