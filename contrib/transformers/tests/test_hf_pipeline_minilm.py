"""The real all-MiniLM-L6-v2, through hardpoint and through transformers alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

import hardpoint as hp
from hardpoint_contrib_transformers import CompiledPipeline, load, pipeline

SENTENCES = [
    "Hi",
    "A cat is sleeping on the warm window sill.",
    "Stock markets fell sharply on Monday, and investors sold shares as prices dropped.",
    "She plays the violin. " * 40,
    "Our rocket reached orbit this morning. " * 100,  # longer than the model: truncated to 512
]


@pytest.fixture(scope="module")
def compiled(minilm: Path) -> CompiledPipeline:
    return pipeline("feature-extraction", minilm, targets="cpu")


@pytest.fixture(scope="module")
def saved(compiled: CompiledPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled.save(tmp_path_factory.mktemp("minilm") / "saved")


def vectors(pipe: object, **parameters: object) -> list[torch.Tensor]:
    made = pipe(SENTENCES, return_tensors=True, truncation=True, **parameters)  # type: ignore[operator]
    return [one[0] if one.dim() == 3 else one for one in made]


def test_it_gives_the_numbers_of_transformers(
    compiled: CompiledPipeline, minilm: Path, record_property: pytest.RecordProperty
) -> None:
    plain = transformers.pipeline("feature-extraction", str(minilm), device="cpu")
    for batch in (1, 5):
        pairs = zip(
            vectors(compiled, batch_size=batch), vectors(plain, batch_size=batch), strict=True
        )
        error = max(float((got - want).abs().max()) for got, want in pairs)
        record_property(f"max_error_batch_{batch}", error)
        print(f"batch {batch}: max error {error:.1e}")
        assert error <= 1e-5
    assert [len(v) for v in vectors(compiled)][-1] == 512


def test_a_text_longer_than_the_model_is_an_error_and_never_runs_elsewhere(
    compiled: CompiledPipeline,
) -> None:
    with pytest.raises(hp.InputError) as refusal:
        compiled(SENTENCES[-1])
    said = str(refusal.value)
    assert "(seq) is 702, it must be 2 to 512" in said
    assert "remedy: shorten a text that is too long with truncation=True" in said


def test_bf16_is_one_word(minilm: Path, compiled: CompiledPipeline) -> None:
    half = pipeline("feature-extraction", minilm, targets="cpu", precision="bf16")
    full = torch.tensor(compiled("A cat sleeps."))
    assert half.compiled.verification["precision"] == "bf16"
    assert 0 < (torch.tensor(half("A cat sleeps.")) - full).abs().max() < 0.1


def test_a_saved_pipeline_starts_in_a_new_process_without_the_models_code(
    saved: Path, compiled: CompiledPipeline
) -> None:
    code = (
        "import json, sys\n"
        "from hardpoint_contrib_transformers import load\n"
        "pipe = load(sys.argv[1])\n"
        "vector = pipe('A cat sleeps.')[0][0]\n"
        "code = [m for m in sys.modules if m.startswith('transformers.models.bert.model')]\n"
        "print(json.dumps([vector, code]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)], capture_output=True, text=True, check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    vector, model_code = json.loads(done.stdout.splitlines()[-1])
    assert model_code == []
    assert torch.equal(torch.tensor(vector), torch.tensor(compiled("A cat sleeps.")[0][0]))


def test_starting_captures_plans_and_compiles_nothing(saved: Path) -> None:
    registry, told = hp.Registry(), list[hp.Event]()
    registry.observe(told.append)
    load(saved, registry=registry)("Hi")
    kinds = {event.kind for event in told}
    assert "ran" in kinds
    assert not kinds & {"captured", "planned", "compiled", "fell back"}


def test_a_pipeline_has_a_registry_of_its_own_under_its_policy(minilm: Path, saved: Path) -> None:
    nothing = hp.Policy(allow=("serializer:safetensors",))
    with pytest.raises(hp.PlanError, match="there is no target to plan for"):
        pipeline("feature-extraction", minilm, policy=nothing)
    with pytest.raises(hp.ProviderDenied, match="backend:cpu may not be used"):
        load(saved, policy=nothing)
    made = load(saved, policy=hp.Policy(deny=("transport:gloo",)))
    assert made.registry is not hp.default_registry()
    assert made.registry.record("transport", "gloo").state == "denied"
    assert hp.default_registry().record("transport", "gloo").state != "denied"


def test_a_damaged_package_does_not_start(saved: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(saved, broken)
    with (broken / "model.pt2").open("r+b") as file:
        file.seek(-5_000_000, 2)
        file.write(b"\xff" * 64)
    with pytest.raises(hp.PackageError):
        load(broken)
