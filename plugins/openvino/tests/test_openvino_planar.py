"""From channels last to PyTorch's layout: by transpositions where OpenVINO has a slow loop."""

from __future__ import annotations

import pytest
import torch

from hardpoint_openvino import compiler, planar

MARK = b"hardpoint:channels-last:"
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


@pytest.fixture
def loops(monkeypatch):
    """How many loops OpenVINO has in each model that is compiled, as it is converted."""
    seen = []

    def recorded(model, compiling):
        seen.append(len(list(planar._loops(compiling(model)))))
        return planar.compile_planar(model, compiling)

    monkeypatch.setattr(compiler, "compile_planar", recorded)
    return seen


@pytest.mark.parametrize("then", [torch.nn.Identity(), torch.nn.GroupNorm(8, 32)],
                         ids=["result", "group-norm"])  # fmt: skip
def test_what_is_wanted_planar_is_transposed_bit_for_bit(
    then, loops, export, compiled, backend, device, monkeypatch
):
    model = Gated(then).eval()
    made = compiled(export(model, X))
    if not loops[0]:
        pytest.skip("OpenVINO has no such loop on this processor")
    assert MARK in bytes(made.files["model.xml"])
    monkeypatch.setattr(planar, "_LEAST", 1 << 40)
    plain = compiled(export(model, X))
    assert MARK not in bytes(plain.files["model.xml"])
    (got,), (was,) = (backend.load(artifact, device)(X) for artifact in (made, plain))
    assert torch.equal(got, was)
    with torch.no_grad():
        assert torch.allclose(got, model(X), atol=1e-4)


def test_where_the_first_transposition_would_be_work_the_loop_stays(
    loops, export, compiled, backend, device
):
    model = Gated(Skip()).eval()
    made = compiled(export(model, X))
    if not loops[0]:
        pytest.skip("OpenVINO has no such loop on this processor")
    assert MARK not in bytes(made.files["model.xml"])
    with torch.no_grad():
        assert torch.allclose(backend.load(made, device)(X)[0], model(X), atol=1e-4)


def test_sizes_that_are_not_known_are_left_to_openvino(loops, export, compiled, backend, device):
    model = Gated(torch.nn.Identity()).eval()
    batch = torch.export.Dim("batch", min=2)
    made = compiled(export(model, X, dynamic=({0: batch},)))
    assert loops == [0]
    assert MARK not in bytes(made.files["model.xml"])
    more = torch.cat([X, X])
    with torch.no_grad():
        assert torch.allclose(backend.load(made, device)(more)[0], model(more), atol=1e-4)
