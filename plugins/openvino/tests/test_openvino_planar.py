"""From channels last to PyTorch's layout: by transpositions where OpenVINO has a slow loop."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
import torch

from hardpoint_openvino import compiler, planar

MARK = "hardpoint:channels-last:"
X = torch.linspace(-2, 2, 2 * 32 * 48 * 40).sin().reshape(2, 32, 48, 40)


class Gated(torch.nn.Module):
    """A product of two convolutions, which OpenVINO computes with the channels last; and more."""

    def __init__(self, then: torch.nn.Module) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.one, self.other = (torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
        self.then = then

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.then(self.one(inputs) * self.other(inputs))


class Skip(torch.nn.Module):
    """A sum of two convolutions, which OpenVINO makes part of one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Conv2d(32, 32, 1), torch.nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.other(torch.nn.functional.silu(x))


class Twice(torch.nn.Module):
    """A result that a sum takes as well: OpenVINO may write the sum into its memory."""

    def __init__(self) -> None:
        super().__init__()
        self.last = torch.nn.Conv2d(32, 32, 3, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x + self.last(X[:1])


@pytest.fixture
def compilations(monkeypatch):
    """Of each model that OpenVINO compiles, as it is asked to: whether it is marked."""
    seen = []
    compile_model = compiler.compile_model

    def recorded(model, device, settings):
        seen.append(any(op.get_friendly_name().startswith(MARK) for op in model.get_ops()))
        return compile_model(model, device, settings)

    monkeypatch.setattr(compiler, "compile_model", recorded)
    return seen


def is_marked(artifact) -> bool:
    return MARK.encode() in bytes(artifact.files["model.xml"])


def transposed(artifact) -> list[str]:
    """The kinds of operators whose values are transposed."""
    net = ElementTree.fromstring(bytes(artifact.files["model.xml"]))
    layers = {layer.get("id"): layer for layer in net.iter("layer")}
    return [
        layers[edge.get("from-layer")].get("type")
        for edge in net.iter("edge")
        if layers[edge.get("to-layer")].get("name").startswith(MARK) and edge.get("to-port") == "0"
    ]


@pytest.fixture
def plain(compiled, monkeypatch):
    """Compile a program as OpenVINO does it by itself."""

    def make(program, *asked):
        with monkeypatch.context() as patch:
            patch.setattr(planar, "_LEAST", 1 << 40)
            made = compiled(program, *asked)
        assert not is_marked(made)
        return made

    return make


@pytest.fixture(scope="module", autouse=True)
def channels_last(build, export):
    """Whether OpenVINO's convolutions keep the channels last here, told by the kind of their kernel."""
    made = build(export(Gated(torch.nn.Conv2d(32, 32, 1)).eval(), X))
    found = made._compiled.get_runtime_model().get_ordered_ops()
    facts = [{key: str(value.value) for key, value in op.get_rt_info().items()} for op in found]
    if not any(f["primitiveType"].startswith("brgconv") for f in facts):
        pytest.skip("OpenVINO's convolutions have another layout on this processor")


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize(
    ("then", "precision"),
    [
        (torch.nn.Identity(), "fp32"),
        (torch.nn.GroupNorm(8, 32), "fp32"),
        (torch.nn.Identity(), "int8"),
    ],
    ids=["result", "group-norm", "result-int8"],
)
def test_what_is_wanted_planar_is_transposed_bit_for_bit(
    then, precision, rows, export, compiled, plain, backend, device
):
    x = X[:rows].contiguous() if rows == 2 else torch.cat([X[:1], X[1:]], 2)
    model = Gated(then).eval()
    asked = (precision, [x])
    made, was = compiled(export(model, x), *asked), plain(export(model, x), *asked)
    assert transposed(made) == ["Multiply"]
    assert made.weights.keys() == was.weights.keys()
    for values in (x, -x):
        (got,), (before,) = (backend.load(each, device)(values) for each in (made, was))
        assert torch.equal(got, before)
        with torch.no_grad():
            assert torch.allclose(got, model(values), atol=1e-4 if precision == "fp32" else 0.2)


def test_where_the_first_transposition_would_be_work_the_loop_stays(
    compilations, export, compiled, backend, device
):
    model = Gated(Skip()).eval()
    made = compiled(export(model, X))
    assert compilations == [False, True]
    assert not is_marked(made)
    with torch.no_grad():
        assert torch.allclose(backend.load(made, device)(X)[0], model(X), atol=1e-4)


def test_what_something_else_takes_as_well_is_left_alone(export, compiled, backend, device):
    model = Gated(Twice()).eval()
    made = compiled(export(model, X))
    assert [kind for kind in transposed(made) if kind != "Add"] == []
    ready = backend.load(made, device)
    for values in (X, -X):
        with torch.no_grad():
            for got, want in zip(ready(values), model(values), strict=True):
                assert torch.allclose(got, want, atol=1e-4)


def test_sizes_that_are_not_known_are_left_to_openvino(
    compilations, export, compiled, backend, device
):
    model = Gated(torch.nn.Identity()).eval()
    batch = torch.export.Dim("batch", min=2)
    made = compiled(export(model, X, dynamic=({0: batch},)))
    assert compilations == [False]
    more = torch.cat([X, X])
    with torch.no_grad():
        assert torch.allclose(backend.load(made, device)(more)[0], model(more), atol=1e-4)


@pytest.mark.parametrize("part", ["_loops", "_transposed", "_kept"])
def test_a_model_that_cannot_be_looked_at_is_compiled_as_it_is(part, monkeypatch, export, compiled):
    def fail(*_):
        raise RuntimeError("no such property")

    monkeypatch.setattr(planar, part, fail)
    assert not is_marked(compiled(export(Gated(torch.nn.Identity()).eval(), X)))
