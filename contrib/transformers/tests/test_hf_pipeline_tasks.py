"""Each task gives what transformers' own pipeline gives, also for sizes it was not captured with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import hardpoint as hp
from hardpoint_contrib_transformers import load, pipeline
from hardpoint_contrib_transformers.tasks import TASKS

TEXTS = ["hello", "this is one text that is longer by far", "a short one . hello you"]
MASKED = [f"{text} [MASK]" for text in TEXTS]


def pictures() -> list[Any]:
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    random = np.random.default_rng(1)
    return [image.fromarray(random.integers(0, 256, (h, 40, 3), np.uint8)) for h in (30, 50, 70)]


def sounds() -> list[Any]:
    random = np.random.default_rng(1)
    return [random.standard_normal(n).astype(np.float32) for n in (3000, 5000, 5000)]


CASES = {
    "feature-extraction": ("distilbert", lambda: TEXTS, {}),
    "feature-extraction, positions after the padding's": ("roberta", lambda: TEXTS, {}),
    "feature-extraction, a decoder without its cache": ("gpt2", lambda: TEXTS[1:], {}),
    "text-classification": ("bert classifies", lambda: TEXTS, {"top_k": None}),
    "text-classification, a decoder": ("gpt2 classifies", lambda: TEXTS[1:], {"top_k": None}),
    "zero-shot-classification": ("bert entails", lambda: TEXTS, {"candidate_labels": ["one", "two"]}),
    "token-classification": ("bert labels tokens", lambda: TEXTS, {}),
    "fill-mask": ("bert fills masks", lambda: MASKED, {}),
    "image-classification": ("vit classifies", pictures, {}),
    "image-feature-extraction": ("vit", pictures, {}),
    "audio-classification": ("wav2vec2 classifies", sounds, {}),
}  # fmt: skip


def assert_alike(got: Any, want: Any) -> None:
    """Equal in structure and words; numbers up to rounding."""
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert got.keys() == want.keys()
        for key in want:
            assert_alike(got[key], want[key])
    elif isinstance(want, list):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            assert_alike(one, other)
    elif isinstance(want, (float, np.floating)):
        assert math.isclose(got, want, rel_tol=1e-4, abs_tol=1e-5)
    else:
        assert got == want


def test_every_supported_task_has_a_case() -> None:
    assert {name.partition(",")[0] for name in CASES} == TASKS.keys()


@pytest.mark.parametrize("case", CASES)
def test_a_task_gives_what_transformers_gives(
    case: str, directory: Callable[[str], Path], tmp_path: Path
) -> None:
    model, inputs, parameters = CASES[case]
    task, folder, items = case.partition(",")[0], directory(model), inputs()
    plain = transformers.pipeline(task, str(folder), device="cpu", dtype=torch.float32)
    ours = pipeline(task, folder, targets="cpu")
    again = load(ours.save(tmp_path / "saved"))
    for made in (ours, again):
        for item in items:
            assert_alike(made(item, **parameters), plain(item, **parameters))
        if "audio" not in task:  # sounds of different lengths need a mask in one batch
            together = {"batch_size": 3, **parameters}
            assert_alike(made(items, **together), plain(items, **together))
    assert type(ours.inner) is type(plain)
    assert str(ours).startswith(f"{task} with {type(plain.model).__name__}\ncompiled ")
    assert not list(again.inner.model.__dict__.keys() & {"_modules", "_parameters"})


def test_a_loaded_model_is_taken_with_its_tokenizer(directory: Callable[[str], Path]) -> None:
    folder = directory("bert classifies")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    made = pipeline("text-classification", model, tokenizer=tokenizer, targets="cpu")
    plain = transformers.pipeline("text-classification", model, tokenizer=tokenizer, device="cpu")
    assert_alike(made("hello you"), plain("hello you"))


def test_second_names_of_tasks_and_parameters_at_the_start_are_transformers_own(
    directory: Callable[[str], Path],
) -> None:
    folder = directory("bert classifies")
    made = pipeline("sentiment-analysis", folder, targets="cpu", top_k=2)
    plain = transformers.pipeline("sentiment-analysis", str(folder), device="cpu", top_k=2)
    assert_alike(made("hello"), plain("hello"))
    assert made.task == "text-classification"
    # transformers collates in the order of a set; programs must not differ by it.
    names = [spec.name for spec in made.compiled.signature.inputs]
    assert names == sorted(names)


def test_examples_of_ones_own_decide_what_may_change(directory: Callable[[str], Path]) -> None:
    alike = (["hello you", "a text"], ["hello you", "a text", "two three"])
    made = pipeline(
        "text-classification", directory("bert classifies"), targets="cpu", examples=alike
    )
    assert made("hello one")[0]["score"] > 0
    with pytest.raises(hp.InputError, match="dimension 1 is 5, it must be 4"):
        made("a longer text")
