"""Small programs for the checks of calls: a backend of few operators claims some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own habit
from torch import nn

from hardpoint.program.program import Program
from hardpoint.program.sources import capture_source
from hardpoint.registry.registry import Registry


class _One(nn.Module):
    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> object:
        return self.function(x)


class _Two(_One):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> object:  # type: ignore[override]
        return self.function(x, y)


@dataclass(frozen=True)
class Small:
    """A module of a few operators.

    :param make: makes it, from the random numbers of the moment.
    :param inputs: how many it takes, all of one shape.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: int = 1

    def module(self) -> nn.Module:
        """A new one, always with the same weights."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            return self.make().eval()

    def program(self, examples: Sequence[torch.Tensor], *, dynamic: bool) -> Program:
        """It, captured.

        :param dynamic: the first dimension, which all inputs share, may change.
        """
        names = ("x", "y")[: self.inputs]
        sizes = {name: {0: "rows"} for name in names} if dynamic else None
        return capture_source(
            self.module(), tuple(examples[: self.inputs]), dynamic=sizes, name=self.name,
            registry=Registry(path=[]),
        )  # fmt: skip

    def eager(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What eager PyTorch gives, flat."""
        with torch.no_grad():
            given = self.module()(*(t.detach().cpu().clone() for t in inputs[: self.inputs]))
        return _flat(given)


def _flat(value: object) -> list[torch.Tensor]:
    if isinstance(value, tuple):
        return [tensor for item in value for tensor in _flat(item)]
    assert isinstance(value, torch.Tensor)
    return [value]


class _All(nn.Module):
    def __init__(self, parts: Sequence[Small]) -> None:
        super().__init__()
        self.takes = [part.inputs for part in parts]
        self.parts = nn.ModuleList(part.module() for part in parts)

    def forward(self, x: torch.Tensor) -> tuple[object, ...]:
        return tuple(part(x) for part in self.parts)


class _AllOfTwo(_All):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[object, ...]:  # type: ignore[override]
        pairs = zip(self.parts, self.takes, strict=True)
        return tuple(part(x) if takes == 1 else part(x, y) for part, takes in pairs)


def together(parts: Sequence[Small]) -> Small:
    """One program with the results of each part: one compilation for all."""
    takes = max(part.inputs for part in parts)
    make = _All if takes == 1 else _AllOfTwo
    return Small(", ".join(part.name for part in parts), lambda: make(parts), takes)


def _one(name: str, function: Callable[[torch.Tensor], object]) -> Small:
    return Small(name, lambda: _One(function))


def _two(name: str, function: Callable[[torch.Tensor, torch.Tensor], object]) -> Small:
    return Small(name, lambda: _Two(function), inputs=2)


def _linear() -> nn.Module:
    return _One(nn.Linear(8, 8))


def _layers() -> nn.Module:
    return _One(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)))


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(x), self.second(x)


def _named(*small: Small) -> Mapping[str, Small]:
    return {s.name: s for s in small}


# The last dimension of what these take is 8.
LAYERS = _named(Small("linear, relu, linear", _layers), Small("linear", _linear))
# Element by element: any shape. No two give the same numbers.
UNARY = _named(
    _one("relu", F.relu), _one("x + x", lambda x: x + x), _one("neg", torch.neg),
    _one("sigmoid", torch.sigmoid), _one("tanh", torch.tanh), _one("gelu", F.gelu),
    _one("abs", torch.abs), _one("clamp", lambda x: x.clamp(-1, 1)),
)  # fmt: skip
BINARY = _named(
    _two("x + y", torch.add), _two("x * y", torch.mul), _two("x - y", torch.sub),
    _two("maximum", torch.maximum), _two("minimum", torch.minimum),
)  # fmt: skip
# They take a matrix, and mix the elements of a row.
MIXING = _named(
    _one("sum", lambda x: x.sum(1)), _one("amax", lambda x: x.amax(1)),
    _one("mean", lambda x: x.mean(1)), _one("softmax", lambda x: x.softmax(1)),
)  # fmt: skip
SEVERAL = _named(
    _one("relu, x + x, and relu again", lambda x: (F.relu(x), x + x, F.relu(x))),
    Small("two linear layers", _Pair),
)
EXACT = _named(
    _two("x + y", torch.add), _two("x * y", torch.mul), _two("x - y", torch.sub),
    _two("x // y", lambda x, y: torch.div(x, y, rounding_mode="floor")),
    _two("x == y", torch.eq), _two("x < y", torch.lt), _two("maximum", torch.maximum),
    _one("abs", torch.abs), _one("sum", lambda x: x.sum()),
)  # fmt: skip
LOGICAL = _named(
    _two("logical_and", torch.logical_and), _two("logical_or", torch.logical_or),
    _two("logical_xor", torch.logical_xor), _one("logical_not", torch.logical_not),
    _two("x & y", torch.bitwise_and), _one("any", lambda x: x.any()),
)  # fmt: skip


def floats(*shape: int) -> list[torch.Tensor]:
    """Two tensors of normal random numbers: examples for ``x`` and ``y``."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for _ in range(2)]


def turned(tensors: Sequence[torch.Tensor], by: int, rows: int = 0) -> list[torch.Tensor]:
    """Other inputs made of the same rows, so that no number leaves the range of the examples.

    A backend of few bits fits its scales to the examples.

    :param by: which row comes first. :param rows: how many are wanted; 0: as many as there are.
    """
    count = tensors[0].shape[0]
    order = (torch.arange(rows or count) + by) % count
    return [t[order] for t in tensors]
