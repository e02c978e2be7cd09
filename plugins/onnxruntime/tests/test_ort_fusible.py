"""Graphs are written so that ONNX Runtime's own optimizers know them; results stay PyTorch's."""

import math

import onnx
import onnxruntime
import ort_programs as shared
import pytest
import torch

from hardpoint_onnxruntime.export import export
from hardpoint_onnxruntime.exporter import serialized

ROWS = torch.tensor([[0.0, 0, 0, 0], [1, -2, 3, 4], [1e-30, 0, 0, 0], [1e30, 1, 0, -1]])
ODD = torch.tensor([[math.inf, 1, 2, 3], [math.nan, 1, 2, 3], [-math.inf, 0, 0, 0], [0, 0, 0, 1]])


def kinds(model):
    return [node.op_type for node in model.graph]


def optimized(model, folder):
    """What ONNX Runtime runs."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(serialized(model), settings, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


def test_an_rms_norm_becomes_one_operator(tmp_path):
    model = export(shared.exported(torch.nn.RMSNorm(4, eps=1e-6), ROWS))
    assert "Div" in kinds(model)
    assert "Reciprocal" not in kinds(model)
    assert optimized(model, tmp_path) == ["SimplifiedLayerNormalization"]


def test_a_gelu_becomes_one_operator(tmp_path):
    model = export(shared.exported(torch.nn.GELU(), ROWS))
    assert optimized(model, tmp_path) == ["Gelu"]


def test_a_gelu_keeps_a_nan(opened):
    """Of an infinity PyTorch itself makes NaN, which nobody needs to repeat."""
    x = torch.tensor([1.0, -2, math.nan, 0, -1e30, 1e30, 3, 4] * 2).reshape(4, 4)
    [got] = opened(shared.exported(torch.nn.GELU(), ROWS))(x)
    torch.testing.assert_close(got, torch.nn.functional.gelu(x), equal_nan=True)


FUNCTIONS = {
    "rms norm": lambda x: torch.nn.functional.rms_norm(x, (4,), torch.arange(4.0), eps=1e-6),
    "no weight": lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "from the right": lambda x: torch.rsqrt(x.abs()) * x,
    "both are results": lambda x: (torch.rsqrt(x.abs()), x * torch.rsqrt(x.abs())),
    "used twice": lambda x: (lambda r: (x * r, (x + 1) * r, r + 1))(torch.rsqrt(x.abs() + 1)),
    "its own square": lambda x: (lambda r: r * r)(torch.rsqrt(x.abs())),
    "half an error function": lambda x: x * (0.5 * (torch.erf(x) + 1)),
    "half of another": lambda x: x * (0.5 * (torch.tanh(x) + 1)),
    "no root": lambda x: x * torch.reciprocal(x.abs()),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [ROWS, ODD], ids=["rows", "odd"])
def test_results_are_pytorchs(name, x, opened, reasons):
    function = FUNCTIONS[name]
    program = shared.exported(function, ROWS)
    assert not reasons(program)
    want = function(x)
    want = list(want) if isinstance(want, tuple) else [want]
    for got, right in zip(opened(program)(x), want, strict=True):
        torch.testing.assert_close(got, right, equal_nan=True)


def test_the_result_of_a_program_keeps_its_name():
    function = FUNCTIONS["both are results"]
    model = export(shared.exported(function, ROWS))
    assert kinds(model).count("Div") == 1
    assert kinds(model).count("Reciprocal") == 1
    names = [value.name for value in model.graph.outputs]
    assert len(set(names)) == 2
    assert all(value.producer() is not None for value in model.graph.outputs)


def test_nothing_is_left_that_nobody_uses():
    x, mask = torch.randn(1, 2, 4, 8), torch.ones(4, 4, dtype=torch.bool).tril()

    def attend(x, mask):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x, mask)

    graph = export(shared.exported(attend, x, mask)).graph
    unused = [
        node.name
        for node in graph
        if not any(value.uses() or value in graph.outputs for value in node.outputs)
    ]
    assert unused == []
    assert any(node.op_type == "IsNaN" for node in graph)
