"""What cannot work is said at once, in words for whoever wrote the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings, strategies as st

import hardpoint as hp
from hardpoint_contrib_transformers import CompiledPipeline, load, pipeline
from hardpoint_contrib_transformers.folder import _check
from hardpoint_contrib_transformers.recording import changing_sizes

Directory = Callable[[str], Path]


def test_a_task_that_generates_is_refused_with_the_reason_before_anything_is_loaded() -> None:
    with pytest.raises(hp.ConfigError) as refusal:
        pipeline("text-generation", "no/such/model")
    assert str(refusal.value) == (
        "the task 'text-generation' does not run through hardpoint\n"
        "  cause: only tasks that call their model once do; not those that generate, token by token "
        "with a cache, or that call parts of it\n"
        "  remedy: take transformers.pipeline for it; here there are: audio-classification, "
        "feature-extraction, fill-mask, image-classification, image-feature-extraction, "
        "text-classification, token-classification, zero-shot-classification"
    )


def test_a_misspelt_task_gets_a_suggestion() -> None:
    with pytest.raises(hp.ConfigError) as refusal:
        pipeline("feature-extracton", "no/such/model")
    assert str(refusal.value) == (
        "'feature-extracton' is no task of transformers\n"
        "  remedy: did you mean 'feature-extraction'?"
    )


@pytest.mark.parametrize("word", ["device", "device_map"])
def test_where_the_model_runs_is_for_the_plan_to_say(word: str, directory: Directory) -> None:
    with pytest.raises(hp.ConfigError) as refusal:
        pipeline("text-classification", directory("bert classifies"), **{word: "cuda"})
    assert f"{word}='cuda' is transformers' word for where a model runs" in str(refusal.value)
    assert "say targets=, e.g. targets='cpu'" in str(refusal.value)


def test_a_policy_and_a_registry_are_one_too_many() -> None:
    with pytest.raises(hp.ConfigError, match="policy= and registry= are both given"):
        pipeline("fill-mask", "no/such/model", policy=hp.Policy(), registry=hp.Registry())


def test_examples_that_reach_the_model_in_two_ways_are_shown(directory: Directory) -> None:
    class Forgetful(transformers.PreTrainedTokenizerFast):
        def __call__(self, text: Any, **more: Any) -> Any:
            return super().__call__(text, return_attention_mask="[MASK]" not in text, **more)

    folder = directory("bert classifies")
    tokenizer = Forgetful.from_pretrained(folder)
    with pytest.raises(hp.ConfigError) as refusal:
        pipeline("text-classification", folder, tokenizer=tokenizer, examples=(["a"], ["a [MASK]"]))
    assert str(refusal.value) == (
        "the two batches of examples reach the model in two ways\n"
        "  cause: once with attention_mask: int64[1, 3], input_ids: int64[1, 3]; once with "
        "input_ids: int64[1, 4]\n"
        "  remedy: give two batches of like inputs: examples=([...], [...])"
    )


@pytest.mark.parametrize("examples", [(["a"],), (["a"], []), ("a text", "another")])
def test_examples_are_two_lists(examples: Any, directory: Directory) -> None:
    with pytest.raises(hp.ConfigError, match="examples= is not two batches of inputs"):
        pipeline("feature-extraction", directory("distilbert"), examples=examples)


def test_what_the_compiled_model_lacks_is_named(small: CompiledPipeline) -> None:
    with pytest.raises(AttributeError, match="runs through hardpoint and has no 'generate'"):
        small.inner.model.generate()
    with pytest.raises(hp.InputError, match="no argument 'pixel_values'"):
        small.inner.model(pixel_values=torch.zeros(1))


def test_a_capture_that_fails_says_where(directory: Directory) -> None:
    class Branches(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    folder = directory("distilbert")
    model = transformers.AutoModel.from_pretrained(folder)
    model.transformer.layer[0].ffn.activation = Branches()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with pytest.raises(hp.CaptureError, match=r"return x if x\.sum"):
        pipeline("feature-extraction", model, tokenizer=tokenizer)


# --- saving and loading


@pytest.fixture(scope="module")
def small(directory: Directory) -> CompiledPipeline:
    return pipeline("feature-extraction", directory("distilbert"), targets="cpu")


@pytest.fixture
def saved(small: CompiledPipeline, tmp_path: Path) -> Path:
    return small.save(tmp_path / "saved")


def test_nothing_is_written_over(small: CompiledPipeline, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    (tmp_path / "file").touch()
    for name in ("there", "file"):
        with pytest.raises(hp.PackageError, match="is there already, and not an empty folder"):
            small.save(tmp_path / name)
    (tmp_path / "empty").mkdir()
    small.save(tmp_path / "empty")
    assert load(tmp_path / "empty")("hello") == small("hello")


def test_a_folder_that_was_not_saved_to_its_end_is_no_pipeline(saved: Path) -> None:
    (saved / "pipeline.json").unlink()
    with pytest.raises(hp.PackageError) as refusal:
        load(saved)
    assert str(refusal.value) == (
        f"{saved} is no saved pipeline\n  cause: it has no pipeline.json\n"
        "  remedy: give a folder that CompiledPipeline.save() wrote to its end"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "its format is 2, this release reads 1"),
        ({"task": None}, "'task' is None, not a str"),
        ({"architecture": "a b"}, "'architecture' is 'a b', not a class name"),
        ({"dtype": "nn"}, "'dtype' is 'nn'; known: float32, float16"),
        ({"parts": ["pickle"]}, "'parts' names 'pickle'; known: tokenizer"),
        ({"fixed": []}, "'fixed' is [], not a dict"),
    ],
)  # fmt: skip
def test_a_damaged_description_says_what_is_wrong(
    change: dict[str, object], said: str, saved: Path
) -> None:
    file = saved / "pipeline.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(hp.PackageError) as refusal:
        load(saved)
    assert f"{file} is damaged\n  cause: {said}" in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_description_is_damaged(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "pipeline.json").write_bytes(content)
    with pytest.raises(hp.PackageError, match=r"pipeline\.json is damaged"):
        load(tmp_path)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)  # fmt: skip
_names = ("format", "task", "architecture", "dtype", "prefix", "modalities", "fixed", "parts")


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(_names), _json) | _json)
def test_any_json_is_a_description_or_a_clear_error(found: object) -> None:
    whole = {"format": 1, "task": "fill-mask", "architecture": "A", "dtype": "float32",
             "prefix": "", "modalities": [], "fixed": {}, "parts": []}  # fmt: skip
    try:
        _check({**whole, **found} if isinstance(found, dict) else found)
    except (ValueError, hp.ConfigError) as error:
        assert str(error)


# --- which sizes change


def test_sizes_that_change_alike_have_one_name() -> None:
    def call(batch: int, seq: int, other: int) -> dict[str, torch.Tensor]:
        return {"ids": torch.zeros(batch, seq), "mask": torch.zeros(batch, seq), "third": torch.zeros(other, 4)}  # fmt: skip

    assert changing_sizes(call(2, 7, 5), call(3, 9, 6)) == {
        "ids": {0: "batch", 1: "seq"}, "mask": {0: "batch", 1: "seq"}, "third": {0: "size2"},
    }  # fmt: skip
    assert changing_sizes(call(2, 7, 5), call(2, 7, 5)) == {}
