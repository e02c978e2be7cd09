"""A zoo of models for the tests of capture, split and run: one `Case` for each kind of trouble.

A case makes a fresh model (always with the same weights) and the inputs of call `i`: call 0 gives
the examples for capture, later calls have other dynamic sizes where the model has any.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

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


def module(forward, **state):
    """A module of one function; `state` holds its parameters, buffers and sub-modules."""

    class Small(nn.Module):
        pass

    def make():
        made = Small()
        for name, value in state.items():
            value = value() if callable(value) and not isinstance(value, nn.Module) else value
            if isinstance(value, (nn.Module, nn.Parameter)):
                setattr(made, name, value)
            else:
                made.register_buffer(name, value)
        return made

    Small.forward = forward
    Small.__name__ = Small.__qualname__ = forward.__name__
    return make


def case(cases: list[Case], inputs, dynamic=None, *, random=False, training=False, **state):
    """Add the decorated `forward` to `cases`."""

    def register(forward):
        cases.append(
            Case(forward.__name__, module(forward, **state), inputs, dynamic, random, training)
        )  # fmt: skip
        return forward

    return register


def rows(i):
    """The usual input: a matrix with a dynamic number of rows."""
    return torch.randn(size(i), 4)


ROWS = {"x": {0: "rows"}}


def images(i):
    """A batch of small pictures."""
    return torch.randn(size(i), 3, 6, 6)


def linear(inputs=4, outputs=4):
    """A layer that is made with its model."""
    return lambda: nn.Linear(inputs, outputs)
