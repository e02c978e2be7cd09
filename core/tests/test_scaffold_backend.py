"""The backend that ``hardpoint new`` makes: right on every model, strict about what it loads."""

from __future__ import annotations

import json
import random
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from eager_backend import Provider
from hf_models import CASES as ARCHITECTURES
from scaffolded import Installed
from small_models import CASES as SMALL
from splitting import CASES, assert_like_eager, bounded, program

NAME = "freshbackend"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    with Installed(tmp_path_factory.mktemp("new"), NAME) as made:
        yield made


@pytest.fixture(scope="module")
def registry(installed: Installed) -> hp.Registry:
    """The new plugin, and the test's own backend for what it does not run."""
    made = installed.registry()
    made.add("backend", "eager", Provider("eager"))
    return made


@pytest.fixture(autouse=True)
def training_is_meant() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is in training mode", hp.HardpointWarning)
        yield


def check(name: str, registry: hp.Registry) -> None:
    plan = hp.plan(program(name), targets=[NAME, "eager"], partitioner=NAME, registry=registry)
    assert_like_eager(CASES[name], hp.compile(plan, registry=registry), exact=True)


@pytest.mark.parametrize("name", [case.name for case in SMALL])
def test_a_small_model_on_it_and_another_is_bit_equal_to_eager(
    name: str, registry: hp.Registry
) -> None:
    check(name, registry)


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in ARCHITECTURES])
def test_a_real_architecture_on_it_and_another_is_bit_equal_to_eager(
    name: str, registry: hp.Registry
) -> None:
    check(name, registry)


def test_an_encoder_of_any_size_runs_on_it_alone(registry: hp.Registry) -> None:
    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    found = hp.capture(model, (torch.randn(2, 5, 16),), dynamic={"src": {0: "b", 1: "s"}})
    plan = hp.plan(found, targets=[NAME], partitioner=NAME, registry=registry)
    compiled = hp.compile(plan, registry=registry)
    for shape in ((2, 5, 16), (3, 9, 16)):
        x = torch.randn(shape)
        torch.testing.assert_close(compiled(x), model(x))


def artifact_of(registry: hp.Registry) -> tuple[hp.Backend, hp.Artifact, torch.nn.Module]:
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 4)
    ).eval()
    backend = registry.open("backend", NAME)
    found = hp.capture(model, (torch.randn(3, 4),), registry=registry).exported
    return backend, backend.compile(found, backend.devices()[0], hp.CompileOptions()), model


def test_threads_may_call_one_executable(registry: hp.Registry) -> None:
    backend, artifact, model = artifact_of(registry)
    executable = backend.load(artifact, backend.devices()[0])
    inputs = [torch.randn(3, 4) for _ in range(8)]
    found: list[Any] = [None] * len(inputs)

    def work(number: int) -> None:
        for _ in range(50):
            found[number] = executable(inputs[number])[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(y, model(x)) for x, y in zip(inputs, found, strict=True))


def test_a_call_heeds_neither_gradients_nor_autocast(registry: hp.Registry) -> None:
    backend, artifact, model = artifact_of(registry)
    executable = backend.load(artifact, backend.devices()[0])
    x = torch.randn(3, 4, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = executable(x)
    assert found.dtype is torch.float32
    assert not found.requires_grad
    assert torch.equal(found, model(x))


def test_attention_with_dropout_is_refused_and_without_it_is_not(registry: hp.Registry) -> None:
    class Attend(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            attend = torch.nn.functional.scaled_dot_product_attention
            return attend(x, x, x) + attend(x, x, x, dropout_p=0.5)

    backend = registry.open("backend", NAME)
    found = hp.capture(Attend().eval(), (torch.randn(1, 2, 3, 4),), registry=registry).exported
    answer = backend.support(found, backend.devices()[0])
    assert list(answer.unsupported.values()) == ["attention with dropout draws random numbers"]


@settings(bounded, max_examples=300)
@given(seed=st.integers(0, 2**32))
def test_a_file_that_is_not_as_it_was_written_is_read_or_refused_never_more(
    installed: Installed, registry: hp.Registry, seed: int
) -> None:
    _, artifact, _ = artifact_of_once(registry)
    files, operators = installed.module("program_file"), installed.module("operators")
    draw = random.Random(seed)
    data = bytearray(artifact.files["program.json"])
    for _ in range(draw.randint(1, 8)):
        at = draw.randrange(len(data))
        if draw.random() < 0.5:
            data[at] = draw.choice(b'{}[]",:0189-.eE\\ntfu \x00\xff')
        else:
            del data[at : at + draw.randint(1, 30)]
    try:
        files.decode(bytes(data), operators.BY_NAME)
    except files.DamagedFileError as error:
        assert str(error)


_once: list[tuple[hp.Backend, hp.Artifact, torch.nn.Module]] = []


def artifact_of_once(registry: hp.Registry) -> tuple[hp.Backend, hp.Artifact, torch.nn.Module]:
    if not _once:
        _once.append(artifact_of(registry))
    return _once[0]


def plain(**parts: object) -> bytes:
    return json.dumps({"inputs": 1, "weights": [], "steps": [], "outputs": [0], **parts}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (plain(inputs=True), "where a number from 0 up should stand"),
        (plain(outputs=[1]), "an output is a value that no step makes"),
        (plain(steps=[["aten.add.Tensor", [{"value": 1}], {}]]), "neither plain, nor a value"),
        (plain(steps=[["builtins.eval", ["1"], {}]]), "'builtins.eval', which is unknown"),
        (plain(steps=[["aten.relu.default", [{"constant": "torch.load"}], {}]]), "nor a constant"),
        (plain(steps=[["aten.relu.default", [[[[[[[[[[[1]]]]]]]]]]], {}]]), "nested too deeply"),
        (plain(steps=["relu"]), "where a list should stand"),
        (plain(weights=[1]), "a weight has no name"),
        (plain(more=1), "not the four parts"),
        (b"[" * 200_000, "it is not JSON"),
        (b'{"inputs": NaN}', "NaN is not JSON"),
    ],
)
def test_a_hostile_file_is_refused_in_words(registry: hp.Registry, data: bytes, words: str) -> None:
    backend, artifact, _ = artifact_of_once(registry)
    hostile = hp.Artifact(artifact.format, {"program.json": data}, metadata=artifact.metadata)
    with pytest.raises(hp.ArtifactError) as caught:
        backend.load(hostile, backend.devices()[0])
    text = str(caught.value)
    assert words in text
    assert f"provider: backend:{NAME} (from hardpoint-{NAME} 0.1.0)" in text
    assert "remedy: compile the segment again with this version, for this device" in text
