"""Accuracy on real data before and after each precision.

A small CNN trained here on scikit-learn's digits; MiniLM's real weights on pairs of sentences; a
small decoder trained here on the English text of Python's own documentation.
"""

from __future__ import annotations

import math
import pydoc_data.topics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from _backend_decoder import AllLogits, Decoder
from _backend_models import minilm, tokens
from _backend_pairs import PAIRS
from torch import nn

import hardpoint as hp
from hardpoint.benching.row import BenchRow
from hardpoint.measuring.candidate import Candidate


@dataclass(frozen=True)
class Task:
    """A model with data that it was not trained on.

    :param figures: what they are. :param examples: inputs to capture and calibrate with.
    :param score: figures of something that is called as the module is.
    """

    name: str
    figures: tuple[str, ...]
    module: nn.Module
    examples: tuple[torch.Tensor, ...]
    score: Callable[[Callable[..., Any]], tuple[float, ...]]


def digits() -> Task:
    """1,797 handwritten digits of 8 x 8; the last 512 are held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(data.target)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * 16, 10),
    )  # fmt: skip
    held = len(images) - 512
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(8):
        for rows in torch.randperm(held).split(64):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    tests = list(zip(images[held:].split(64), labels[held:].split(64), strict=True))

    def score(call: Callable[..., Any]) -> tuple[float, ...]:
        right = sum(int((call(x).argmax(1) == y).sum()) for x, y in tests)
        return (right / 512,)

    return Task("digits CNN", ("accuracy",), model.eval(), (images[:64],), score)


def sentences() -> Task:
    """How alike sentences are, in order: the ranks of all pairs, and the nearest of each."""
    texts = [text for pair in PAIRS for text in pair]
    given = tokens(texts, 32)
    # Calibrated with other sentences than those that are scored.
    examples = tuple(tokens(_prose(len(texts) // 2), 32).values())
    module = minilm()
    with torch.no_grad():
        expected = _similarities(module, given)

    def score(call: Callable[..., Any]) -> tuple[float, ...]:
        got = _similarities(call, given)
        upper = torch.triu_indices(len(texts), len(texts), 1)
        ranks = [s[upper[0], upper[1]].argsort().argsort().double() for s in (got, expected)]
        spearman = float(torch.corrcoef(torch.stack(ranks))[0, 1])
        lonely = [s - 2 * torch.eye(len(texts)) for s in (got, expected)]
        nearest = float((lonely[0].argmax(1) == lonely[1].argmax(1)).double().mean())
        mates = torch.arange(len(texts)) ^ 1
        found = float((lonely[0].argmax(1) == mates).double().mean())
        return spearman, nearest, found

    names = ("rank correlation with fp32", "same nearest", "nearest is its pair")
    return Task("MiniLM, sentence pairs", names, module, examples, score)


def _prose(count: int) -> list[str]:
    """So many sentences of Python's own documentation."""
    text = " ".join(pydoc_data.topics.topics["exceptions"].split())
    found = [s.strip() for s in text.split(". ") if 30 < len(s) < 200 and s.isascii()]
    return [found[i % len(found)] for i in range(count)]


def _similarities(call: Callable[..., Any], given: dict[str, torch.Tensor]) -> torch.Tensor:
    half = len(given["input_ids"]) // 2
    halves = (slice(half), slice(half, None))
    parts = [call(*(t[rows] for t in given.values()))["embedding"] for rows in halves]
    values = torch.cat(parts).float()
    return values @ values.T


def language(steps: int) -> Task:
    """Perplexity by byte on the last tenth of the text; windows of 256."""
    text = "\n".join(pydoc_data.topics.topics[k] for k in sorted(pydoc_data.topics.topics))
    data = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long()
    held = len(data) * 9 // 10
    torch.manual_seed(0)
    model = Decoder(vocabulary=256, width=256, layers=4, heads=4, inner=704)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(steps):
        starts = torch.randint(0, held - 129, (16,))
        rows = torch.stack([data[s : s + 129] for s in starts])
        logits = model.all_logits(rows[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    tests = [data[s : s + 257] for s in range(held, len(data) - 257, 4 * 257)][:24]
    examples = torch.stack([data[s : s + 256] for s in range(0, held - 257, held // 8)][:8])

    def score(call: Callable[..., Any]) -> tuple[float, ...]:
        total = 0.0
        for start in range(0, 24, 8):
            rows = torch.stack(tests[start : start + 8])
            logits = call(rows[:, :-1]).float()
            total += float(nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()))
        return (math.exp(total / 3),)

    figures = ("perplexity a byte",)
    return Task("decoder, Python's documentation", figures, AllLogits(model).eval(), (examples,), score)  # fmt: skip


TASKS: dict[str, Callable[[int], Task]] = {
    "digits": lambda steps: digits(),
    "sentences": lambda steps: sentences(),
    "language": language,
}

# The model of tests/bench/backends.py whose claims a task's figures stand beside.
LIKE = {"digits": "resnet50", "sentences": "minilm", "language": "decoder-decode"}


def measure(
    task: Task, targets: list[str], precisions: dict[str, list[str]],
    winners: Sequence[Candidate] = (),
) -> dict[str, Any]:  # fmt: skip
    """Figures before, and after each precision.

    :param precisions: target -> what it has. :param winners: whose figures are wanted, too.
    """
    with torch.no_grad():
        rows: list[dict[str, Any]] = [{"label": "eager PyTorch fp32", "figures": task.score(task.module)}]  # fmt: skip
    program = hp.capture(task.module, task.examples, name=task.name)
    plans: dict[str, hp.Plan] = {}

    def figures(label: str, target: str, precision: str, options: Any) -> dict[str, Any]:
        row: dict[str, Any] = {"label": label}
        try:
            if target not in plans:
                plans[target] = hp.plan(program, targets=target)
            compiled = hp.compile(
                plans[target], precision={target: precision}, max_error=math.inf, isolate=True,
                options=options,
            )  # fmt: skip
            row["figures"] = task.score(compiled)
            row["error"] = compiled.verification["max_error"]
            compiled.close()
        except hp.HardpointError as error:
            row["failed"] = ": ".join(filter(None, (error.what, error.cause)))[:300]
        except Exception as error:  # a runtime's, while it is scored: the others go on
            row["failed"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return row

    for target in targets:
        rows += [figures(f"{target} {p}", target, p, {}) for p in precisions[target]]
    for winner in winners:
        [(target, asked)] = winner.precisions.items()
        label = BenchRow.of(winner, 1).label
        if label not in {row["label"] for row in rows}:
            rows.append(figures(label, target, asked, dict(winner.options)))
    return {"figures": list(task.figures), "rows": rows}
