"""The pickle of a checkpoint, in an archive that is always right."""

import io
from collections.abc import Iterator
from pathlib import Path

import torch
from target import Target, files
from wrapped import checkpoint, pickle_of

from targets._checkpoints import pickle_words, read_checkpoint


def run(data: bytes, folder: Path) -> None:
    read_checkpoint(checkpoint(data), folder / "model.pt")


def seeds() -> Iterator[bytes]:
    yield from filter(None, map(pickle_of, files("checkpoint", "golden/*.pt", "hostile/*.pt")))
    base, flags = torch.arange(4.0), torch.tensor([True] * 12)
    pair = torch.zeros(2, dtype=torch.complex64)
    for state in (
        {"w": base, "t": base.view(2, 2).t(), "n": {"flags": flags, "epoch": 3, "lr": 1e-3}},
        {"w": torch.nn.Parameter(base), "c": pair.conj(), "s": [base[1:3], {"k": None}]},
        {"e": base[:1].expand(3, 4), "z": base[:0], "d": torch.float16, "text": "x"},
        base,
    ):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        yield pickle_of(buffer.getvalue())


TARGET = Target(run=run, seeds=seeds, words=lambda: list(pickle_words()), longest=4096)
