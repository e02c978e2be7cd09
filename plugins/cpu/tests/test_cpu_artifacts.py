"""Artifacts in other processes and on other machines."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

from hardpoint import Artifact, ArtifactError, Device

READER = """
import json, mmap, sys
from pathlib import Path
sys.modules["transformers"] = None  # importing it fails: the model's code is not here
import torch
from hardpoint import Artifact
from hardpoint_cpu import plugin

folder = Path(sys.argv[1])
facts = json.loads((folder / "artifact.json").read_text())
files = {}
for name in facts["files"]:
    with (folder / name).open("rb") as file:
        files[name] = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
artifact = Artifact(
    format=facts["format"],
    files=files,
    weights=torch.load(folder / "weights", mmap=True, weights_only=True),
    metadata=facts["metadata"],
)
backend = plugin.hardpoint_backend_open({})
executable = backend.load(artifact, backend.devices()[0])
for inputs, expected in torch.load(folder / "examples", weights_only=True):
    for found, wanted in zip(executable(*inputs), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
print("inductor" if "torch._inductor.compile_fx" in sys.modules else "no inductor")
"""


def in_a_new_process(folder: Path, artifact: Artifact, examples: object, **environment: str) -> str:
    for name, data in artifact.files.items():
        (folder / name).write_bytes(data)
    names = list(artifact.files)
    facts = {"format": artifact.format, "files": names, "metadata": dict(artifact.metadata)}
    (folder / "artifact.json").write_text(json.dumps(facts))
    torch.save(dict(artifact.weights), folder / "weights")
    torch.save(examples, folder / "examples")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READER, str(folder)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "name"), [("eager", "bert"), ("inductor", "mlp"), ("aot", "bert")]
)
def test_a_model_runs_in_a_new_process_without_its_own_code(mode, name, case, compiled, tmp_path):
    made = case(name)
    artifact = compiled(made.program(), mode=mode)
    examples = [(inputs, made.expected(inputs)) for inputs in made.all_inputs()]
    # An empty PATH: there is no compiler to be found, except where the mode needs one.
    environment = {} if mode == "inductor" else {"PATH": "", "CXX": ""}
    said = in_a_new_process(tmp_path, artifact, examples, **environment)
    assert said == ("inductor" if mode == "inductor" else "no inductor")


def test_a_loaded_artifact_never_writes_to_its_weights(case, compiled, backend):
    made = case("mlp")
    artifact = compiled(made.program())
    before = {name: tensor.clone() for name, tensor in artifact.weights.items()}
    backend.load(artifact, backend.devices()[0])(*made.inputs)
    assert all(torch.equal(before[name], tensor) for name, tensor in artifact.weights.items())


@pytest.fixture(scope="module")
def library() -> Artifact:
    """One ahead-of-time artifact with a weight, for all refusals."""
    from hardpoint import CompileOptions
    from hardpoint_cpu import plugin

    backend = plugin.hardpoint_backend_open({})
    program = torch.export.export(torch.nn.Linear(8, 16), (torch.ones(2, 8),), strict=False)
    options = CompileOptions(backend={"mode": "aot"})
    return backend.compile(program.run_decompositions({}), backend.devices()[0], options)


def refused(backend, artifact: Artifact) -> str:
    with pytest.raises(ArtifactError) as caught:
        backend.load(artifact, backend.devices()[0])
    text = str(caught.value)
    assert "provider: backend:cpu (from hardpoint-cpu" in text
    assert "remedy: " in text
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"torch": "2.12.1"},
            ["another version of PyTorch", "compiled with torch 2.12.1, this is"],
        ),
        ({"platform": "darwin"}, ["another platform", "it was compiled for darwin on"]),
        ({"machine": "riscv64"}, ["another platform", "on riscv64, this is"]),
        ({"isa": ["AVX512", "WIDE4096"]}, ["another processor", "it needs", "WIDE4096; this pro"]),
        ({"isa": None}, ["another processor"]),
        ({"constants": {}}, ["the library and its list of weights do not belong together"]),
        ({"constants": None}, ["the artifact does not name its constants"]),
        ({"sha256": {}}, ["model.so is damaged"]),
        ({"sha256": {"model.so": "0"}}, ["model.so is damaged", "its SHA-256 is not the one"]),
    ],
)
def test_a_library_for_something_else_is_refused_before_it_is_loaded(
    change, words, backend, library
):
    text = refused(backend, dataclasses.replace(library, metadata={**library.metadata, **change}))
    for part in words:
        assert part in text


@pytest.mark.slow
def test_a_damaged_library_is_refused(backend, library):
    data = bytearray(library.files["model.so"])
    data[len(data) // 2] ^= 1
    text = refused(backend, dataclasses.replace(library, files={"model.so": bytes(data)}))
    assert "copy the package again, or compile the segment again" in text


@pytest.mark.slow
def test_a_library_without_its_file_or_weights_is_refused(backend, library):
    assert "the artifact has no file 'model.so'" in refused(
        backend, dataclasses.replace(library, files={})
    )
    assert "the artifact lacks the weight" in refused(
        backend, dataclasses.replace(library, weights={})
    )


@pytest.mark.slow
def test_a_file_that_is_no_library_is_refused_with_the_loaders_words(backend, library):
    import hashlib

    data = b"not a library"
    facts = {**library.metadata, "sha256": {"model.so": hashlib.sha256(data).hexdigest()}}
    changed = dataclasses.replace(library, files={"model.so": data}, metadata=facts)
    assert "the library cannot be loaded" in refused(backend, changed)


class Singular(torch.nn.Module):
    """Its operator has no function in C: the library asks PyTorch for it by name."""

    def forward(self, x):
        return torch.linalg.svd(x)[1] * 2


@pytest.mark.slow
def test_a_library_that_asks_pytorch_for_an_operator_finds_it_in_a_new_process(
    backend, compiled, tmp_path
):
    x = torch.randn(3, 4)
    program = torch.export.export(Singular(), (x,), strict=False).run_decompositions({})
    artifact = compiled(program, mode="aot")
    assert set(artifact.files) == {"model.so", "model.json"}
    said = in_a_new_process(tmp_path, artifact, [((x,), (Singular()(x),))], PATH="", CXX="")
    assert said == "no inductor"
    alone = {"model.so": artifact.files["model.so"]}
    assert "the artifact has no file 'model.json'" in refused(
        backend, dataclasses.replace(artifact, files=alone)
    )
    changed = {**artifact.files, "model.json": b"{}"}
    assert "model.json is damaged" in refused(backend, dataclasses.replace(artifact, files=changed))


def no_memory_files(name, flags=0):
    raise PermissionError("no files in memory")


def files_that_cannot_be_loaded(name, flags=0):
    return os.open(os.devnull, os.O_RDWR)


@pytest.mark.slow
@pytest.mark.parametrize("memfd", [no_memory_files, files_that_cannot_be_loaded])
def test_where_no_file_in_memory_can_be_had_the_library_is_opened_from_the_disk(
    memfd, backend, library, monkeypatch
):
    x = torch.ones(2, 8)
    before = backend.load(library, backend.devices()[0])(x)[0]
    monkeypatch.setattr(os, "memfd_create", memfd, raising=False)
    torch.testing.assert_close(backend.load(library, backend.devices()[0])(x)[0], before)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="files in memory are Linux's")
def test_a_library_is_opened_without_the_disk(backend, library, monkeypatch):
    def on_disk(*_):
        raise AssertionError("it went to the disk")

    monkeypatch.setattr("hardpoint_cpu.library._on_disk", on_disk)
    assert backend.load(library, backend.devices()[0])(torch.ones(2, 8))[0].shape == (2, 16)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="names of descriptors are Linux's")
def test_opening_and_closing_libraries_leaves_no_descriptor(backend, library):
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        backend.load(library, backend.devices()[0]).close()
    assert len(list(descriptors.iterdir())) == before


KILLED = """
import os, sys, torch
from hardpoint import CompileOptions
from hardpoint_cpu import plugin

backend = plugin.hardpoint_backend_open({})
program = torch.export.export(torch.nn.Linear(8, 16), (torch.ones(2, 8),), strict=False)
options = CompileOptions(backend={"mode": "aot", "freezing": True})
artifact = backend.compile(program.run_decompositions({}), backend.devices()[0], options)
executable = backend.load(artifact, backend.devices()[0])
executable(torch.ones(2, 8))
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_an_open_library_leaves_no_file_behind_even_when_the_process_is_killed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLED], capture_output=True, text=True, timeout=300,
        env={**os.environ, "TMPDIR": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == -9, done.stderr
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]
    assert left == []


@pytest.mark.slow
def test_the_library_uses_the_weights_where_they_lie(backend, library):
    x = torch.randn(2, 8)
    weights = {name: tensor.detach().clone() for name, tensor in library.weights.items()}
    executable = backend.load(dataclasses.replace(library, weights=weights), backend.devices()[0])
    before = executable(x)[0]
    weights["weight"].mul_(2)
    weights["bias"].mul_(2)
    torch.testing.assert_close(executable(x)[0], before * 2)


@pytest.mark.slow
def test_a_library_that_is_closed_lets_go_of_its_weights(backend, library):
    x = torch.randn(2, 8)
    arrays = {name: tensor.detach().numpy().copy() for name, tensor in library.weights.items()}
    weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
    held = [weakref.ref(array) for array in arrays.values()]
    executable = backend.load(dataclasses.replace(library, weights=weights), backend.devices()[0])
    before = executable(x)[0].clone()
    del weights, arrays
    assert all(array() is not None for array in held)
    executable.close()
    executable.close()
    assert all(array() is None for array in held)
    with pytest.raises(RuntimeError, match="the executable was closed"):
        executable(x)
    again = backend.load(library, backend.devices()[0])
    torch.testing.assert_close(again(x)[0], before)


def test_an_eager_artifact_without_a_weight_is_refused(case, compiled, backend):
    artifact = compiled(case("mlp").program())
    text = refused(backend, dataclasses.replace(artifact, weights={}))
    assert "the artifact lacks the weight 'first.weight' and 5 more" in text


def test_a_load_for_a_device_that_is_not_there_is_refused(case, compiled, backend):
    artifact = compiled(case("mlp").program())
    with pytest.raises(ArtifactError) as raised:
        backend.load(artifact, Device("7", "an eighth CPU"))
    assert str(raised.value).splitlines()[0] == "the cpu backend has no device '7'"
    assert "remedy: known: 0" in str(raised.value)


@pytest.mark.slow
def test_loading_inductor_without_a_compiler_says_so(case, compiled, backend, monkeypatch):
    artifact = compiled(case("no dimensions").program(), mode="inductor")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    text = refused(backend, artifact)
    assert "the artifact cannot be compiled on this machine" in text
    assert "cause: the C++ compiler 'g++' is not on PATH" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "inputs",
    [None, {}, {"inputs": [{}], "symbols": {}}, {"inputs": [], "symbols": {"s": {}}},
     {"inputs": [{"dtype": "float32", "shape": ["s9"]}], "symbols": {}},
     {"inputs": [{"dtype": "float32", "shape": [["**", 9, 9]]}], "symbols": {}}],
)  # fmt: skip
def test_a_damaged_description_of_inputs_is_refused(inputs, case, compiled, backend):
    artifact = compiled(case("no dimensions").program(), mode="inductor")
    changed = dataclasses.replace(artifact, metadata={**artifact.metadata, "inputs": inputs})
    text = refused(backend, changed)
    assert "describe its inputs" in text or "description of its inputs is damaged" in text
