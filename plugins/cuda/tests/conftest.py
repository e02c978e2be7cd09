"""Devices as data, and the backend that compiles for them without having one."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import torch
from torch.export import ExportedProgram

from hardpoint import Artifact
from hardpoint_cuda import probing
from hardpoint_cuda.backend import GpuBackend
from hardpoint_cuda.options import Options
from hardpoint_cuda.vendor import CUDA, Hardware


def gpu(arch: str = "sm_90", name: str = "", **more: object) -> Hardware:
    """A device, described; PyTorch's version is the installed one."""
    facts = {"index": 0, "name": name or f"a GPU of {arch}", "arch": arch, "driver": "580.159.03",
             "runtime": "13.0", "torch": torch.__version__, "memory": 80 * 2**30}  # fmt: skip
    return Hardware(**{**facts, **more})


def exported(function: Callable[..., object], *inputs: torch.Tensor, **options) -> ExportedProgram:
    """A function, or a module, as a segment comes to a backend."""
    model = function
    if not isinstance(model, torch.nn.Module):

        class Model(torch.nn.Module):
            def forward(self, *inputs):
                return function(*inputs)

        model = Model()
    return torch.export.export(model, inputs, strict=False, **options).run_decompositions({})


def through_bytes(artifact: Artifact) -> Artifact:
    """The artifact as it comes out of a package: views of files, mapped weights, JSON facts."""
    weights = {}
    for name, tensor in artifact.weights.items():
        held = io.BytesIO()
        torch.save(tensor.detach().clone(), held)
        weights[name] = torch.load(io.BytesIO(held.getvalue()), weights_only=True)
    return Artifact(
        artifact.format,
        {name: memoryview(bytes(data)) for name, data in artifact.files.items()},
        weights,
        json.loads(json.dumps(dict(artifact.metadata))),
    )


@pytest.fixture
def backend() -> GpuBackend:
    """The backend as it is behind ``open``, which refuses on a machine without a device."""
    return GpuBackend({}, CUDA, probing.nvidia)


@pytest.fixture
def compiled(backend):
    """Compile for a described device; the artifact as it comes out of a package."""

    def make(program, precision="fp32", device=None, **options) -> Artifact:
        wanted = Options.parse(options, precision, CUDA)
        return through_bytes(backend.compile_for(program, device or gpu(), precision, wanted))

    return make


@pytest.fixture
def tools():
    """The functions above, for test modules, which are imported one by one."""

    class Tools:
        pass

    found = Tools()
    found.gpu, found.exported, found.through_bytes = gpu, exported, through_bytes
    return found
