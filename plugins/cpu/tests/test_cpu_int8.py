"""int8: layers computed in integers, proven in the graph that Inductor compiled."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from hardpoint import ArtifactError, CompileError, CompileOptions, ConfigError
from hardpoint_cpu import executed, host
from hardpoint_cpu.compiled_layers import CompiledLayers

pytest.importorskip("torchao")
pytestmark = pytest.mark.skipif(
    host.machine() != "x86_64", reason="PyTorch's int8 kernels are for x86-64"
)
LIMIT = 5e-2  # of the largest result


class Residual(torch.nn.Module):
    """A convolutional network: batch norms to fold, a sum, a pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.first_norm = torch.nn.BatchNorm2d(16)
        self.second = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.second_norm = torch.nn.BatchNorm2d(16)
        self.last = torch.nn.Linear(16, 10)

    def forward(self, x):
        y = torch.relu(self.first_norm(self.first(x)))
        z = torch.relu(self.second_norm(self.second(y)) + y)
        return self.last(torch.nn.functional.max_pool2d(z, 2).mean((2, 3)))


class Feed(torch.nn.Module):
    """Linear layers over sequences, one of them as a product, and attention between them."""

    def __init__(self) -> None:
        super().__init__()
        self.up = torch.nn.Linear(32, 64)
        self.down = torch.nn.Parameter(torch.randn(64, 32) / 8)

    def forward(self, x):
        y = torch.nn.functional.gelu(self.up(x)) @ self.down
        return torch.nn.functional.scaled_dot_product_attention(y, y, x)


class Volume(torch.nn.Module):
    """A kind of layer that has no int8 kernel, beside one that has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv3d(2, 4, 3)
        self.last = torch.nn.Linear(4, 8)

    def forward(self, x):
        return self.last(self.conv(x).mean((2, 3, 4)))


def seeded(kind):
    torch.manual_seed(0)
    return kind().eval()


def program(model, x, dynamic=None):
    return torch.export.export(
        model, (x,), dynamic_shapes=dynamic, strict=False
    ).run_decompositions({})


@pytest.fixture
def made(backend):
    """Compile in int8 with examples; the artifact and its executable."""

    def make(model, x, dynamic=None, **options):
        device = backend.devices()[0]
        asked = CompileOptions("int8", (x,), options)
        artifact = backend.compile(program(model, x, dynamic), device, asked)
        return artifact, backend.load(artifact, device)

    return make


def check(model, executable, *inputs) -> None:
    for x in inputs:
        with torch.no_grad():
            wanted = model(x)
        found = executable(x)[0]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert (found - wanted).abs().max() < LIMIT * wanted.abs().max()


@pytest.mark.slow
def test_a_convolutional_network_ahead_of_time_at_every_size(made):
    model, x = seeded(Residual), torch.randn(4, 3, 8, 8)
    _, executable = made(model, x, {"x": {0: torch.export.Dim("batch", max=64)}})
    assert executable.facts()["mode"] == "aot"  # what int8 takes by itself
    assert executable.facts()["precision"] == "int8"
    assert executable.facts()["quantized"] == {"int8": 3}
    assert executable.facts()["float_nodes"] == {}
    check(model, executable, x, x[:1], x.repeat(3, 1, 1, 1))


@pytest.mark.slow
def test_linear_layers_take_the_scale_of_each_call(made):
    model, x = seeded(Feed), torch.randn(2, 5, 32)
    artifact, executable = made(
        model, x, {"x": {1: torch.export.Dim("length", max=64)}}, mode="inductor"
    )
    assert executable.facts()["quantized"] == {"int8": 2}
    check(model, executable, x, x * 100, torch.randn(2, 11, 32))
    assert artifact.weights["up.weight@int8"].dtype == torch.int8
    assert not any(t.dtype is torch.float32 and t.dim() > 1 for t in artifact.weights.values())


@pytest.mark.slow
def test_a_layer_without_an_int8_kernel_is_named(made):
    model, x = seeded(Volume), torch.randn(2, 2, 4, 4, 4)
    _, executable = made(model, x, mode="inductor")
    assert executable.facts()["quantized"] == {"int8": 1}
    assert executable.facts()["float_nodes"] == {
        "conv3d": "the x86 quantizer leaves this operator in floating point"
    }
    check(model, executable, x)


def test_what_inductor_left_in_floating_point_is_named_though_integers_were_asked_for():
    graph = torch.fx.Graph()
    x, w = graph.placeholder("x"), graph.get_attr("w")
    packed = graph.call_function(torch.ops.onednn.qlinear_prepack.default, (w, None))
    one = (x, 1.0, 0, packed, w, w, None, 1.0, 0, None, "none", [], "")
    graph.call_function(torch.ops.onednn.qlinear_pointwise.default, one)
    turned = graph.call_function(torch.ops.aten.permute.default, (w, [1, 0]))
    graph.call_function(torch.ops.aten.mm.default, (x, turned))
    graph.call_function(torch.ops.aten.mm.default, (x, x))  # two activations: no layer
    seen = CompiledLayers()
    seen(graph)
    told = executed.Executed("int8", {"int8": 2})
    seen.correct(told)
    assert told.quantized == {"int8": 1}
    assert told.float_nodes == {
        "mm_default (aten.mm.default)": "Inductor has no int8 kernel for it"
    }
    assert told.precision == "int8"
    CompiledLayers().correct(told)
    assert told.precision == "fp32"


def test_without_examples_there_is_nothing_to_observe(compiled):
    model = seeded(Residual)
    with pytest.raises(CompileError) as caught:
        compiled(program(model, torch.randn(2, 3, 8, 8)), "int8")
    text = str(caught.value)
    assert "int8 needs examples of the segment's inputs" in text
    assert "remedy: capture with example inputs" in text


def test_another_processor_is_refused_with_the_reason(compiled, monkeypatch):
    monkeypatch.setattr(host, "machine", lambda: "aarch64")
    with pytest.raises(CompileError) as caught:
        compiled(program(seeded(Feed), torch.randn(1, 2, 32)), "int8")
    assert "the cpu backend computes in int8 on x86-64 only" in str(caught.value)
    assert "cause: this processor is aarch64" in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"mode": "eager"}, {"mode": "aot", "freezing": False}, {"freezing": False}]
)
def test_a_way_that_would_compute_in_floating_point_is_refused(options, backend):
    asked = CompileOptions("int8", (torch.ones(1, 2, 32),), options)
    with pytest.raises(ConfigError, match="'int8' needs mode 'inductor' or 'aot', with freezing"):
        backend.compile(program(seeded(Feed), torch.ones(1, 2, 32)), backend.devices()[0], asked)


def test_eight_bits_are_refused_where_seven_fit(backend, compiled, monkeypatch):
    artifact = compiled(program(seeded(Feed), torch.randn(1, 2, 32)))
    told = {**artifact.metadata["executed"], "vnni": True}
    changed = dataclasses.replace(artifact, metadata={**artifact.metadata, "executed": told})
    monkeypatch.setattr(host, "has_vnni", lambda: False)
    with pytest.raises(ArtifactError) as caught:
        backend.load(changed, backend.devices()[0])
    assert "int8 numbers are for a processor with VNNI" in str(caught.value)
    assert "remedy: compile the segment again on a machine like this one" in str(caught.value)
