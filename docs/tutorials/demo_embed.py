"""Embed sentences with a package. Runs with torch, hardpoint and a tokenizer: no model code.

Sentences come as JSON on standard input, a report goes out as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer

import hardpoint as hp

CALLS = 20


def tokenize(directory: Path, sentences: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, each (sentences, longest)."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(sentences)
    ids = torch.tensor([e.ids for e in encoded])
    return ids, torch.tensor([e.attention_mask for e in encoded])


def embed(model: hp.CompiledModel, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors, (sentences, 384): the mean over tokens, as the model was trained."""
    hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return torch.nn.functional.normalize(mean, dim=1)


def main() -> None:
    package, directory = Path(sys.argv[1]), Path(sys.argv[2])
    sentences = json.load(sys.stdin)
    ids, mask = tokenize(directory, sentences)
    begin = time.perf_counter()
    model = hp.load(package)
    vectors = embed(model, ids, mask)
    cold_start = time.perf_counter() - begin
    times = []
    for _ in range(CALLS):
        begin = time.perf_counter()
        embed(model, ids, mask)
        times.append(time.perf_counter() - begin)
    scores = vectors @ vectors.T
    scores.fill_diagonal_(-1)
    best = scores.max(dim=1)
    json.dump(
        {
            "cold_start": cold_start,
            "latency_ms": sorted(times)[CALLS // 2] * 1e3,
            "calls": CALLS,
            "threads": torch.get_num_threads(),
            "model_code": [m for m in ("transformers",) if m in sys.modules],
            "nearest": [
                (sentence, sentences[int(i)], float(score))
                for sentence, score, i in zip(sentences, best.values, best.indices, strict=True)
            ],
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
