"""What these tests share: the backend, its one device here, and small programs."""

import sys
from pathlib import Path

import pytest

import hardpoint as hp
from hardpoint import CompileOptions

sys.path.insert(0, str(Path(__file__).parent))

pytest.importorskip("onnxruntime", reason="no wheel of ONNX Runtime is installed")


@pytest.fixture(scope="session")
def registry():
    return hp.Registry()


@pytest.fixture(scope="session")
def backend(registry):
    return registry.open("backend", "onnxruntime")


@pytest.fixture(scope="session")
def cpu(backend):
    return backend.devices()[0]


@pytest.fixture(scope="session")
def opened(backend, cpu):
    """Compile and open a program; gives the executable."""

    def open_(program, precision="fp32", examples=(), **options):
        wanted = CompileOptions(precision, tuple(examples), options)
        return backend.load(backend.compile(program, cpu, wanted), cpu)

    return open_


@pytest.fixture(scope="session")
def reasons(backend, cpu):
    """Why nodes of a program are refused, by operator."""

    def reasons_(program):
        support = backend.support(program, cpu)
        targets = {n.name: str(n.target) for n in program.graph.nodes}
        return {targets[name]: reason for name, reason in support.unsupported.items()}

    return reasons_
