"""How the tests compile and load a function: as a segment, by way of bytes, as a package would."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import torch
from torch.export import ExportedProgram

from hardpoint import Artifact, CompileOptions
from hardpoint_openvino import plugin


class Fn(torch.nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.function(*inputs)


def exported(model, *inputs: torch.Tensor, dynamic: object = None) -> ExportedProgram:
    """A program as segments are: functional, not decomposed. ``dynamic``: of its only argument."""
    if not isinstance(model, torch.nn.Module):
        model = Fn(model)
        dynamic = None if dynamic is None else {"inputs": dynamic}
    program = torch.export.export(model.eval(), inputs, dynamic_shapes=dynamic, strict=False)
    return program.run_decompositions({})


def through_bytes(artifact: Artifact) -> Artifact:
    """The artifact as it comes out of a package: views of files, mapped weights, JSON facts."""
    weights = {}
    for name, tensor in artifact.weights.items():
        held = io.BytesIO()
        torch.save(tensor.detach().clone(), held)
        weights[name] = torch.load(io.BytesIO(held.getvalue()), weights_only=True)
    return Artifact(
        format=artifact.format,
        files={name: memoryview(bytes(data)) for name, data in artifact.files.items()},
        weights=weights,
        metadata=json.loads(json.dumps(dict(artifact.metadata))),
    )


@pytest.fixture(scope="session")
def export():
    return exported


@pytest.fixture(scope="session")
def backend():
    return plugin.hardpoint_backend_open({})


@pytest.fixture(scope="session")
def device(backend):
    return backend.devices()[0]


@pytest.fixture(scope="session")
def compiled(backend, device):
    """Compile a program; the artifact as it comes out of a package."""

    def make(program: ExportedProgram, precision: str = "fp32", examples=(), **options: object):
        asked = CompileOptions(precision, tuple(examples), options)
        return through_bytes(backend.compile(program, device, asked))

    return make


@pytest.fixture(scope="session")
def build(backend, device, compiled):
    """Compile a program and load it again."""

    def make(program: ExportedProgram, precision: str = "fp32", examples=(), **options: object):
        return backend.load(compiled(program, precision, examples, **options), device)

    return make


@pytest.fixture(scope="session")
def refusals(backend, device):
    """Which nodes of a function are declined, and why."""

    def ask(function, *inputs: torch.Tensor, dynamic: object = None) -> dict[str, str]:
        program = exported(function, *inputs, dynamic=dynamic)
        return dict(backend.support(program, device).unsupported)

    return ask
