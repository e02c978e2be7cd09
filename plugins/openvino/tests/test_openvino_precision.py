"""The arithmetic that was asked for, and nothing else: read back from OpenVINO."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

import hardpoint as hp
from hardpoint import CompileError
from hardpoint_openvino import quantize


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3)
        self.norm = torch.nn.BatchNorm2d(16)
        self.first = torch.nn.Linear(576, 256)
        self.last = torch.nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(torch.relu(self.norm(self.conv(x))).flatten(1))))


class Unet(torch.nn.Module):
    """Group norms, attention, and a shift by one row: the embedded time."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first = torch.nn.GroupNorm(8, 32), torch.nn.Conv2d(32, 32, 3, padding=1)
        self.shift, self.mix = torch.nn.Linear(64, 32), torch.nn.Conv2d(32, 96, 1)
        self.last = torch.nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        silu = torch.nn.functional.silu
        y = self.first(silu(self.norm(x))) + self.shift(silu(time))[:, :, None, None]
        q, k, v = self.mix(self.norm(y)).flatten(2).transpose(1, 2)[:, None].chunk(3, 3)
        attention = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        y = attention.transpose(2, 3).reshape(x.shape) + y
        return x + self.last(silu(self.norm(y)))


@pytest.fixture(scope="module")
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net().eval(), torch.randn(8, 3, 8, 8)


def error(made, net) -> float:
    model, x = net
    with torch.no_grad():
        want = model(x)
    return float((made(x)[0] - want).abs().max() / want.abs().max())


def test_fp32_is_computed_in_float32_though_openvino_would_choose_bfloat16(net, export, build):
    made = build(export(*net))
    assert made.facts()["precision"] == "fp32"
    assert made.facts()["precision_hint"] == "f32"
    assert set(made.facts()["operations"]) == {"f32"}
    assert error(made, net) < 1e-5


def test_bf16_is_computed_where_the_processor_has_it_and_refused_elsewhere(
    net, export, build, device
):
    if "BF16" not in device.properties["computes_in"]:
        with pytest.raises(CompileError, match="does not compute in bf16"):
            build(export(*net), "bf16")
        return
    made = build(export(*net), "bf16")
    assert made.facts()["precision"] == "bf16"
    assert 1e-5 < error(made, net) < 3e-2


def test_fp16_is_refused_where_the_device_would_widen_it(net, export, build, device):
    if "FP16" in device.properties["computes_in"]:
        pytest.skip("this processor computes in fp16")
    with pytest.raises(CompileError) as caught:
        build(export(*net), "fp16")
    assert "does not compute in fp16" in str(caught.value)
    assert "cause: it computes in " in str(caught.value)


def test_int8_fits_its_scales_to_the_examples(net, export, build):
    made = build(export(*net), "int8", [net[1]])
    assert made.facts()["precision"] == "int8"
    assert made.facts()["operations"]["u8"] >= 3
    assert error(made, net) < 0.1


@pytest.mark.parametrize("batch", [1, 2, "dynamic"])
def test_int8_is_near_for_inputs_it_has_not_seen_where_one_row_shifts_all(batch, export, build):
    rows = 2 if batch == "dynamic" else batch
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Unet().eval()
        examples, others = ((torch.randn(rows, 32, 8, 8), torch.randn(rows, 64)) for _ in range(2))
    sizes = None
    if batch == "dynamic":
        size = torch.export.Dim("batch", min=2)
        sizes = ({0: size}, {0: size})
    made = build(export(model, *examples, dynamic=sizes), "int8", list(examples))
    assert made.facts()["precision"] == "int8"
    with torch.no_grad():
        want = model(*others)
    assert 0 < float((made(*others)[0] - want).abs().max() / want.abs().max()) < 0.03


class Head(torch.nn.Module):
    """Small weights alone, and attention, which has none."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(64, 192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.mix(x).reshape(1, 4, 3, 16).unbind(2)
        return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None])


@pytest.mark.parametrize("module", [torch.nn.Linear(64, 32), Head()], ids=["linear", "attention"])
def test_one_row_is_in_int8_where_no_other_weights_are(module, export, build):
    x = torch.randn(1, 64)
    assert build(export(module.eval(), x), "int8", [x]).facts()["precision"] == "int8"


def test_int8_without_examples_is_refused(net, export, build):
    with pytest.raises(CompileError, match="int8 needs example inputs"):
        build(export(*net), "int8")


@pytest.mark.parametrize(
    ("precision", "limit", "size"), [("int8w", 0.05, 0.3), ("int4w", 0.2, 0.2)]
)
def test_narrow_weights_are_smaller_and_activations_stay_floats(
    precision, limit, size, net, export, build, compiled, backend, device
):
    artifact = compiled(export(*net), precision)
    made = backend.load(artifact, device)
    facts = made.facts()
    assert facts["precision"] == precision
    assert facts["dynamic_quantization"] == 0
    held = sum(len(f) for f in artifact.files.values()) + sum(
        t.nbytes for t in artifact.weights.values()
    )
    whole = sum(p.nbytes for p in net[0].parameters())
    assert held < size * whole + 60_000  # the graph itself
    assert error(made, net) < limit


def test_activations_are_quantized_on_the_fly_only_where_asked(net, export, build):
    made = build(export(*net), "int8w", dynamic_quantization=32)
    assert made.facts()["dynamic_quantization"] == 32


def test_what_is_not_quantized_computes_in_what_was_asked(net, export, build, device):
    if "BF16" not in device.properties["computes_in"]:
        pytest.skip("this processor has no bf16")
    assert build(export(*net), "int8w", floats="bf16").facts()["precision_hint"] == "bf16"


def test_without_nncf_the_error_says_how_to_get_it(net, export, build, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(CompileError) as caught:
        build(export(*net), "int8w")
    assert "int8, int8w and int4w need NNCF" in str(caught.value)
    assert 'remedy: pip install "hardpoint-openvino[quantize]"' in str(caught.value)


def test_the_core_sees_the_executed_precision():
    program = hp.capture(torch.nn.Linear(8, 8).eval(), (torch.randn(2, 8),))
    model = hp.compile(hp.plan(program, targets=["openvino"]), precision="fp32")
    [segment] = model.segments
    assert segment.executable.facts()["precision"] == "fp32"


def test_what_is_not_quantized_is_refused_in_what_the_device_would_widen(
    net, export, build, device
):
    if "FP16" in device.properties["computes_in"]:
        pytest.skip("this processor computes in fp16")
    with pytest.raises(CompileError, match="does not compute in fp16"):
        build(export(*net), "int8w", floats="fp16")


def test_two_quantizations_at_once_leave_standard_output_as_it_was():
    before, inside, leave = sys.stdout, threading.Event(), threading.Event()

    def other() -> None:
        with quantize._quietly():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with quantize._quietly():
        thread.start()
        inside.wait(0.1)  # it must not come in; if it does, it puts back the wrong one
    leave.set()
    thread.join()
    assert sys.stdout is before
