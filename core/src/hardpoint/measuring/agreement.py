"""How far a model's results are from eager PyTorch's, in figures that a model's owner knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hardpoint.measuring.results import Errors
from hardpoint.numerics import compare

# A result that the model gives no name is taken for logits where it is the only one, with a row a
# sample; one that it calls otherwise, such as an embedding, is not.
_NAME = "logits"
_UNNAMED = ("", "output", "result0")


def errors(
    got: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], names: Sequence[str]
) -> Errors:
    """The greatest errors over all results, and top-1 agreement where one looks like logits."""
    differences = [compare(value, want) for value, want in zip(got, expected, strict=True)]
    agreed, samples = 0, 0
    for value, want, name in zip(got, expected, names, strict=True):
        if looks_like_logits(want, name, alone=len(expected) == 1) and value.shape == want.shape:
            same = value.argmax(-1) == want.argmax(-1)
            agreed, samples = agreed + int(same.sum()), samples + same.numel()
    return Errors(
        max=max((d.error for d in differences), default=0.0),
        mean=max((d.mean for d in differences), default=0.0),
        cosine=min((d.cosine for d in differences), default=1.0),
        agreement=agreed / samples if samples else None,
        samples=samples,
        relative=max((d.relative for d in differences), default=0.0),
    )


def looks_like_logits(result: torch.Tensor, name: str, *, alone: bool) -> bool:
    """Whether the place of the greatest value along the last dimension is likely an answer."""
    if not result.is_floating_point() or result.dim() < 2 or result.shape[-1] < 2:
        return False
    return name.rpartition(".")[2] == _NAME or (alone and name in _UNNAMED and result.dim() == 2)
