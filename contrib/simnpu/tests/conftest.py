"""Programs, and how to compile and call them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence

import pytest
import torch
from torch.export import ExportedProgram

from hardpoint import Artifact, CompileOptions
from hardpoint_contrib_simnpu import plugin


class Fn(torch.nn.Module):
    """A function as a model; tensors after the inputs are its weights."""

    def __init__(self, function: Callable[..., object], *weights: torch.Tensor) -> None:
        super().__init__()
        self.function = function
        self.weights = torch.nn.ParameterList(torch.nn.Parameter(w) for w in weights)

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs, *self.weights)


def exported(module: torch.nn.Module, *inputs: torch.Tensor, **options) -> ExportedProgram:
    """As the core hands programs over."""
    return torch.export.export(module.eval(), inputs, strict=False, **options).run_decompositions(
        {}
    )


def through_bytes(artifact: Artifact) -> Artifact:
    """The artifact as it comes out of a package: views of files, copied weights, JSON facts."""
    weights = {}
    for name, tensor in artifact.weights.items():
        held = io.BytesIO()
        torch.save(tensor.clone(), held)
        weights[name] = torch.load(io.BytesIO(held.getvalue()), weights_only=True)
    return Artifact(
        format=artifact.format,
        files={name: memoryview(bytes(data)) for name, data in artifact.files.items()},
        weights=weights,
        metadata=json.loads(json.dumps(dict(artifact.metadata))),
    )


@pytest.fixture(scope="session")
def function():
    """A function with weights as a model, the same numbers every time."""
    return Fn


@pytest.fixture(scope="session")
def export():
    return exported


@pytest.fixture(autouse=True)
def same_numbers():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture
def opened():
    """Open the backend with a configuration."""
    return plugin.hardpoint_backend_open


@pytest.fixture
def backend(opened):
    return opened({})


@pytest.fixture
def load(backend):
    """Compile a program and load it, as if it came out of a package."""

    def make(program: ExportedProgram, inputs: Sequence[torch.Tensor], precision: str = "fp16"):
        options = CompileOptions(precision=precision, example_inputs=inputs)
        device = backend.devices()[0]
        return backend.load(through_bytes(backend.compile(program, device, options)), device)

    return make


@pytest.fixture
def build(load):
    """Export a model, compile and load it."""

    def make(module: torch.nn.Module, *inputs: torch.Tensor, precision: str = "fp16"):
        return load(exported(module, *inputs), inputs, precision)

    return make


@pytest.fixture
def reasons(backend):
    """Why each operation of a function is refused."""

    def ask(function: Callable[..., object], *inputs: torch.Tensor, on=backend, **options):
        program = exported(Fn(function), *inputs, **options)
        return on.support(program, on.devices()[0]).unsupported

    return ask
