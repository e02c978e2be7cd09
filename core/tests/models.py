"""A zoo of models for the tests of capture, split and run: one `Case` for each kind of trouble.

A case makes a fresh model (always with the same weights) and the inputs of call `i`: call 0 gives
the examples for capture, later calls have other dynamic sizes where the model has any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = tuple[tuple, dict]


@dataclass(frozen=True)
class Case:
    """One model.

    :param random: draws random numbers: comparable with eager only from one seed.
    :param training: stays in training mode.
    """

    name: str
    make: Callable[[], torch.nn.Module]
    inputs: Callable[[int], Call]
    dynamic: Mapping[str, object] | None = None
    random: bool = False
    training: bool = False

    def model(self) -> torch.nn.Module:
        torch.manual_seed(0)
        model = self.make()
        return model.train() if self.training else model.eval()

    def call(self, i: int) -> Call:
        torch.manual_seed(100 + i)
        given = self.inputs(i)
        if isinstance(given, dict):
            return (), given
        if isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict) and isinstance(given[0], tuple):  # fmt: skip
            return given
        return (given if isinstance(given, tuple) else (given,)), {}

    def __str__(self) -> str:
        return self.name


def size(i: int, first: int = 3) -> int:
    """A dynamic size of call `i`: several, never 1."""
    return (first, first + 2, 2, first + 5)[i % 4]
