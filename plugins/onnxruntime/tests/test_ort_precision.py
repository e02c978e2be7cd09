"""Quantized precisions: smaller, near, and told as what they are."""

import logging
import threading

import ort_programs as shared
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hardpoint import CompileError, CompileOptions
from hardpoint_onnxruntime import providers, quantize


class Cnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.relu(self.norm(self.second(x)) + x)
        return self.last(x.mean((2, 3)))


class Unet(nn.Module):
    """Group norms, attention, and a shift by one row: the embedded time."""

    def __init__(self):
        super().__init__()
        self.norm, self.first = nn.GroupNorm(8, 32), nn.Conv2d(32, 32, 3, padding=1)
        self.shift, self.mix = nn.Linear(64, 32), nn.Conv2d(32, 96, 1)
        self.last = nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x, time):
        y = self.first(F.silu(self.norm(x))) + self.shift(F.silu(time))[:, :, None, None]
        q, k, v = self.mix(self.norm(y)).flatten(2).transpose(1, 2)[:, None].chunk(3, 3)
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape) + y
        return x + self.last(F.silu(self.norm(y)))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(200, 64), nn.Linear(64, 128)
        self.head = nn.Linear(128, 200)

    def forward(self, words):
        return self.head(F.gelu(self.layer(self.table(words))))


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    model, x = Cnn().eval(), torch.randn(4, 3, 18, 18)
    return model, x, shared.exported(model, x)


@pytest.fixture(scope="module")
def words():
    torch.manual_seed(0)
    model, x = Words().eval(), torch.randint(0, 200, (2, 6))
    return model, x, shared.exported(model, x)


def _error(got, want):
    return float((got - want).abs().max() / want.abs().max().clamp(min=1))


def test_convolutions_are_calibrated_on_the_examples(cnn, opened):
    model, x, program = cnn
    run = opened(program, "int8", [x])
    assert run.facts()["precision"] == "int8"
    assert run.facts()["operators"]["QuantizeLinear"] >= 3
    with torch.no_grad():
        assert 0 < _error(run(x)[0], model(x)) < 0.1


@pytest.mark.parametrize("batch", [1, 2])
def test_int8_is_for_what_it_makes_faster_and_near_for_inputs_it_has_not_seen(batch, opened):
    torch.manual_seed(0)
    model = Unet().eval()
    examples, others = ((torch.randn(batch, 32, 8, 8), torch.randn(batch, 64)) for _ in range(2))
    run = opened(shared.exported(model, *examples), "int8", examples)
    operators = run.facts()["operators"]
    assert run.facts()["precision"] == "int8"
    # The shift, the attention's two products, and the norms stay floats, with what is between.
    assert (operators["Gemm"], operators["MatMul"], operators["InstanceNormalization"]) == (1, 2, 3)
    assert operators["QuantizeLinear"] < 30
    with torch.no_grad():
        got, want = run(*others)[0], model(*others)
    # The mean: the shift's error is the same all over the picture.
    assert 0 < float((got - want).abs().mean()) < 0.012


def test_what_follows_a_convolution_is_in_int8_too(opened):
    torch.manual_seed(0)
    first, second = nn.Conv2d(16, 16, 1).eval(), nn.Conv2d(32, 16, 1).eval()

    def dense(x):
        return second(torch.cat([x, F.silu(first(x))], 1))

    examples = [torch.randn(1, 16, 8, 8)]
    run = opened(shared.exported(dense, *examples), "int8", examples)
    operators = run.facts()["operators"]
    assert operators["QuantizeLinear"] >= 4  # of the sigmoid, its product and the two joined


def test_one_row_is_in_int8_where_there_is_nothing_else(words, opened):
    layer, x = nn.Linear(64, 32).eval(), torch.randn(1, 64)
    run = opened(shared.exported(layer, x), "int8", [x], quantizer="static")
    assert run.facts()["precision"] == "int8"
    with torch.no_grad():
        assert 0 < _error(run(x)[0], layer(x)) < 0.05


def test_without_examples_int8_of_convolutions_says_what_is_missing(cnn, backend, cpu):
    with pytest.raises(CompileError) as refused:
        backend.compile(cnn[2], cpu, CompileOptions("int8"))
    assert str(refused.value) == (
        "int8 cannot be calibrated\n"
        f"  provider: backend:onnxruntime (from {refused.value.origin})\n"
        "  cause: the segment has 1 inputs, and there are 0 example inputs\n"
        "  remedy: capture the model with example inputs, or use the option quantizer='dynamic'"
    )


def test_matrices_find_the_scale_of_each_call_themselves(words, opened):
    model, x, program = words
    run = opened(program, "int8")
    assert run.facts()["precision"] == "int8"
    assert "MatMulInteger" in run.facts()["operators"]
    with torch.no_grad():
        assert 0 < _error(run(x)[0], model(x)) < 0.1


@pytest.mark.parametrize(
    ("precision", "activations", "share", "limit"),
    [("int8w", "fp32", 0.32, 0.02), ("int8w", "int8", 0.32, 0.05), ("int4w", "fp32", 0.25, 0.3)],
)
def test_weights_alone_are_held_in_few_bits(
    precision, activations, share, limit, words, backend, cpu
):
    model, x, program = words
    made = backend.compile(
        program, cpu, CompileOptions(precision, (x,), {"activations": activations})
    )
    size = sum(w.nbytes for w in made.weights.values())
    assert size < share * sum(p.nbytes for p in model.parameters())
    run = backend.load(made, cpu)
    assert run.facts()["precision"] == precision
    assert run.facts()["operators"]["MatMulNBits"] == 2
    with torch.no_grad():
        assert 0 < _error(run(x)[0], model(x)) < limit


def test_what_has_nothing_to_quantize_is_told_as_fp32(opened):
    run = opened(shared.exported(lambda x: x.relu() + 1, torch.randn(4)), "int8w")
    assert run.facts()["precision"] == "fp32"


def test_fp16_is_refused_where_the_provider_would_cast_around_each_operator(words, backend, cpu):
    with pytest.raises(CompileError) as refused:
        backend.compile(words[2], cpu, CompileOptions("fp16"))
    assert refused.value.what == "ONNX Runtime's CPU provider does not compute in fp16"
    assert refused.value.cause == "it casts to float32 before each operator and back after it"


def test_the_model_for_fp16_keeps_the_dtypes_of_inputs_and_results(words):
    # Whether an accelerator computes it is unverified on hardware; what it is given is not.
    import onnx_ir as ir

    from hardpoint_onnxruntime import export

    made = quantize.half(export.export(words[2]))
    assert made.graph.outputs[0].dtype is ir.DataType.FLOAT
    assert made.graph.inputs[0].dtype is ir.DataType.INT64
    kinds = {value.const_value.dtype for value in made.graph.initializers.values()}
    assert ir.DataType.FLOAT16 in kinds


def test_options_without_a_meaning_are_refused(words, backend, cpu):
    for options, precisions in (
        ({"activations": "int8"}, "int8w or int4w"),
        ({"block": 64}, "int8w or int4w"),
        ({"quantizer": "static"}, "int8"),
    ):
        with pytest.raises(CompileError) as refused:
            backend.compile(words[2], cpu, CompileOptions("fp32", (), options))
        [name] = options
        assert refused.value.what == f"option {name} has no meaning in precision fp32"
        assert refused.value.remedy == f"leave it out, or ask for precision {precisions}"


def test_bytes_are_used_whole_only_where_the_processor_takes_them(words, backend, cpu):
    made = backend.compile(words[2], cpu, CompileOptions("int8"))
    assert made.metadata["full_bytes"] is providers.has_vnni()
    wide = backend.compile(words[2], cpu, CompileOptions())
    assert wide.metadata["full_bytes"] is False


def test_a_quantizer_that_fails_is_told_in_words(words, backend, cpu, monkeypatch):
    def fails(model):
        raise ValueError("more than 2 GB")

    monkeypatch.setattr(quantize, "dynamic", fails)
    with pytest.raises(CompileError) as refused:
        backend.compile(words[2], cpu, CompileOptions("int8"))
    assert refused.value.what == "the segment cannot be made int8"
    assert refused.value.cause == "ValueError: more than 2 GB"


def test_two_quantizations_at_once_leave_logging_as_it_was():
    before, inside, leave = logging.root.manager.disable, threading.Event(), threading.Event()

    def other():
        with quantize._silent():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with quantize._silent():
        thread.start()
        inside.wait(0.1)  # it must not come in; if it does, it puts back the wrong level
    leave.set()
    thread.join()
    assert logging.root.manager.disable == before


def test_a_table_that_is_rounded_alone_is_told(opened):
    run = opened(shared.exported(nn.Embedding(200, 64), torch.tensor([3, 199])), "int8w")
    assert run.facts()["precision"] == "int8w"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_half_precision_are_results_of_that_precision(opened, dtype):
    # PyTorch's exporter promotes them to float32, and would have made that the result.
    x = torch.randn(4, 4).to(dtype)
    run = opened(shared.exported(lambda x: (x.sum(0), x.cumsum(0)), x))
    for got, want in zip(run(x), (x.sum(0), x.cumsum(0)), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want)
