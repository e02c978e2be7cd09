"""Artifacts: what they hold, where they open, and what is refused."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import ArtifactError, Device


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3)
        self.norm = torch.nn.BatchNorm2d(16)
        self.last = torch.nn.Linear(16, 32)
        for statistic in (self.norm.weight, self.norm.running_var):
            torch.nn.init.uniform_(statistic, 0.5, 2)
        for statistic in (self.norm.bias, self.norm.running_mean):
            torch.nn.init.normal_(statistic)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    return Net().eval(), torch.randn(2, 3, 8, 8)


@pytest.fixture(scope="module")
def artifact(net, compiled, export):
    return compiled(export(*net), blob=True)


@pytest.fixture(scope="module")
def unfolded(net, compiled, export):
    return compiled(export(*net), fold=False)


def test_weights_stay_beside_the_model_by_name(artifact, net):
    assert set(artifact.weights) == {"last.weight"}
    assert torch.equal(artifact.weights["last.weight"], net[0].last.weight)


def test_a_batch_norm_is_part_of_its_convolution_in_the_artifact(artifact, unfolded):
    norm = b'type="BatchNormInference"'
    assert norm not in bytes(artifact.files["model.xml"])
    assert len(artifact.files["model.bin"]) > 16 * 3 * 9 * 4  # the convolution's, now its own
    assert norm in bytes(unfolded.files["model.xml"])


def test_unfolded_a_convolution_stays_beside_the_model_too(unfolded):
    assert set(unfolded.weights) == {"conv.weight", "last.weight"}
    assert len(unfolded.files["model.bin"]) < 16 * 3 * 9 * 4


def test_folded_or_not_the_numbers_are_pytorchs(artifact, unfolded, net, backend, device):
    files = {k: v for k, v in artifact.files.items() if k != "model.blob"}
    folded = backend.load(replace(artifact, files=files), device)(net[1])[0]
    torch.testing.assert_close(folded, net[0](net[1]))
    assert torch.equal(folded, backend.load(unfolded, device)(net[1])[0])


def test_the_gates_of_a_recurrent_layer_lie_in_openvinos_order(compiled, export, backend, device):
    lstm, x = torch.nn.LSTM(32, 64, batch_first=True).eval(), torch.randn(2, 5, 32)
    size = sum(p.nbytes for p in lstm.parameters())
    folded, unfolded = (compiled(export(lstm, x), fold=fold) for fold in (True, False))
    assert (len(folded.weights), len(unfolded.weights)) == (0, 4)
    assert len(folded.files["model.bin"]) < 1.1 * size
    for artifact in (folded, unfolded):
        torch.testing.assert_close(backend.load(artifact, device)(x)[0], lstm(x)[0])


def test_what_is_larger_than_the_weights_is_computed_at_each_load(
    compiled, export, backend, device
):
    def masked(x):
        return x + torch.full((1024, 1024), -torch.inf).triu(1)

    x = torch.randn(1024, 1024)
    artifact = compiled(export(masked, x))
    assert len(artifact.files["model.bin"]) < 2**16
    torch.testing.assert_close(backend.load(artifact, device)(x)[0], masked(x))


def test_a_package_stores_a_weight_once(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Tanh()).eval()
    program = hp.capture(model, (torch.randn(1, 512),))
    path = hp.compile(hp.plan(program, targets=["openvino"])).save(tmp_path / "m.pt2")
    assert 2**20 < path.stat().st_size < 1.3 * 2**20
    x = torch.randn(1, 512)
    assert torch.allclose(hp.load(path)(x), model(x), atol=1e-5)


def test_a_blob_is_used_where_it_was_compiled(artifact, net, backend, device):
    made = backend.load(artifact, device)
    assert made.facts()["started_from"] == "blob"
    assert torch.allclose(made(net[1])[0], net[0](net[1]), atol=1e-5)


@pytest.mark.parametrize(
    ("fact", "value"),
    [("openvino", "2025.0"), ("device", "another processor"), ("instructions", [])],
)
def test_a_blob_of_another_machine_is_left_and_the_facts_say_so(
    fact, value, artifact, net, backend, device
):
    host = {**artifact.metadata["host"], fact: value}
    made = backend.load(replace(artifact, metadata={**artifact.metadata, "host": host}), device)
    assert made.facts()["started_from"] == "model"
    assert made.facts()["blob_left"] == f"it was compiled for another {fact}"
    assert torch.allclose(made(net[1])[0], net[0](net[1]), atol=1e-5)


def refusal(backend, artifact, device) -> str:
    with pytest.raises(ArtifactError) as caught:
        backend.load(artifact, device)
    return str(caught.value)


def test_another_format_is_refused(artifact, backend, device):
    assert "it reads hardpoint-openvino/1" in refusal(
        backend, replace(artifact, format="hardpoint-openvino/2"), device
    )


def test_another_device_is_refused(artifact, backend, device):
    assert "OpenVINO has no device 'GPU.7' here" in refusal(backend, artifact, Device("GPU.7", "?"))
    made_for = replace(artifact, metadata={**artifact.metadata, "device": "GPU.0"})
    assert "the artifact was compiled for GPU.0, not for CPU" in refusal(backend, made_for, device)


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_a_damaged_or_missing_file_is_refused(name, artifact, backend, device):
    files = {k: v for k, v in artifact.files.items() if k != "model.blob"}
    cut = {**files, name: bytes(files[name])[:-1]}
    assert f"{name} is damaged" in refusal(backend, replace(artifact, files=cut), device)
    gone = {k: v for k, v in files.items() if k != name}
    assert f"has no file '{name}'" in refusal(backend, replace(artifact, files=gone), device)


def test_a_damaged_blob_is_refused(artifact, backend, device):
    files = {**artifact.files, "model.blob": bytes(artifact.files["model.blob"])[:-8]}
    assert "model.blob is damaged" in refusal(backend, replace(artifact, files=files), device)


def test_a_missing_weight_is_refused_by_name(artifact, backend, device):
    files = {k: v for k, v in artifact.files.items() if k != "model.blob"}
    left = replace(artifact, files=files, weights={})
    said = refusal(backend, left, device)
    assert "its weights are not all there" in said
    assert "last.weight" in said


def test_metadata_are_needed(artifact, backend, device):
    assert "lacks its metadata" in refusal(backend, replace(artifact, metadata={}), device)


def test_a_closed_executable_says_so(artifact, net, backend, device):
    made = backend.load(artifact, device)
    made.close()
    made.close()
    with pytest.raises(RuntimeError, match="the executable was closed"):
        made(net[1])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and madvise(2) is Linux's")
@pytest.mark.parametrize("precision", ["fp32", "int8w"])
def test_weights_of_a_loaded_package_are_not_in_memory_twice(precision, tmp_path):
    """OpenVINO packs them anew; what was mapped of the file is given back to the system."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(2048, 2048, bias=False).eval()
    x = torch.randn(2, 2048)
    compiled = hp.compile(hp.capture(layer, (x,)), targets="openvino", precision=precision)
    path = compiled.save(tmp_path / "large.pt2")
    compiled.close()
    with closing(hp.load(path)) as model:
        first = model(x)
        torch.testing.assert_close(first, layer(x), atol=1e-1, rtol=1e-1)
        assert _resident_of(path) < layer.weight.nbytes / 4
        assert torch.equal(model(x), first)


def _resident_of(path: Path) -> int:
    """Bytes of a file's mappings that are in this process's memory."""
    found, counting = 0, False
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            counting = line.endswith(str(path))
        elif counting and first == "Rss:":
            found += int(line.split()[1]) * 1024
    return found
