"""What a model of the kit is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from hardpoint.program.program import Program
from hardpoint.program.sources import capture_source
from hardpoint.registry.registry import Registry

# Rows of call 0, 1, 2 ... where their number may change: several, none of them 1 at first.
_ROWS = (3, 5, 2, 1)


@dataclass(frozen=True)
class Case:
    """A model with its inputs; every :meth:`model` has the same weights.

    :param make: builds it, from the random numbers of the moment.
    :param inputs: gives the arguments, flat tensors, of a call by its number.
    :param dynamic: which sizes may change, by argument name. Where there are any, the rows of all
        arguments are independent: later calls take those of call 0, in other orders and numbers,
        so that no value leaves the range that a backend of few bits fitted its scales to.
    :param calls: how many calls in a row tell whether it works.
    :param missing: why it cannot be built here, or ``""``.
    """

    name: str
    title: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    dynamic: Mapping[str, object] = field(default_factory=dict)
    calls: int = 3
    missing: Callable[[], str] = field(default=lambda: "")

    def model(self) -> nn.Module:
        """A new one, in evaluation mode."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.make().eval()

    def call(self, number: int, *, dynamic: bool) -> tuple[torch.Tensor, ...]:
        """The arguments of call ``number``; call 0 is the example for capture."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(100)
            if not self.dynamic:
                return self.inputs(number)
            given = self.inputs(0)
        count = _ROWS[number % len(_ROWS)] if dynamic else _ROWS[0]
        order = (torch.arange(count) + number) % _ROWS[0]
        return tuple(t[order] for t in given)

    def program(self, *, dynamic: bool) -> Program:
        """The model, captured, with or without its dynamic sizes."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch and transformers, not the provider's
            return capture_source(
                self.model(), self.call(0, dynamic=dynamic),
                dynamic=self.dynamic if dynamic else None, name=self.name,
                registry=Registry(path=[]),
            )  # fmt: skip

    def expected(self, calls: int, *, dynamic: bool) -> list[tuple[torch.Tensor, ...]]:
        """What eager PyTorch gives in so many calls in a row."""
        model = self.model()
        found = []
        with torch.no_grad():
            for number in range(calls):
                given = model(*self.call(number, dynamic=dynamic))
                found.append(given if isinstance(given, tuple) else (given,))
        return found
