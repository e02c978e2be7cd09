"""The programs to partition: small models of every shape, and random graphs; always the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

from hardpoint.program.program import Program
from hardpoint.program.sources import capture_source
from hardpoint.registry.registry import Registry
from hardpoint.testing.models.sequences import RECURRENT
from hardpoint.testing.models.vision import CONVOLUTIONAL

SEED = 20260401
_WIDTH = 8
_NODES = 40


class _Layers(nn.Module):
    """Six layers; the last has the first one's weight."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(6))
        self.layers[5].weight = self.layers[0].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x


class _Views(nn.Module):
    """Attention by hand: half of its nodes are views."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed, self.out = nn.Linear(_WIDTH, 3 * _WIDTH), nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part.unflatten(-1, (2, -1)).transpose(0, 1) for part in self.mixed(x).chunk(3, -1)
        )
        weights = (query @ key.transpose(1, 2)).softmax(-1)
        merged = (weights @ value).transpose(0, 1).flatten(1)
        result: torch.Tensor = self.out(merged).t().contiguous()
        return result


class _State(nn.Module):
    """Counts its calls and keeps a running mean: buffers that a run changes."""

    count: torch.Tensor
    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(_WIDTH))
        self.layer = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layer(x - self.mean)
        self.count.add_(1)
        self.mean.mul_(0.9).add_(0.1 * y.mean(0))
        return y.tanh(), x * self.count


class _Sizes(nn.Module):
    """Sizes that are known only at the call go through the graph as scalars."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.shape[0]
        y = self.layer(x).reshape(rows * 2, -1)
        positions = torch.arange(rows, dtype=x.dtype).repeat_interleave(2)
        return torch.cat((y * positions[:, None], y.new_ones(rows, y.shape[1])))


class _Fans(nn.Module):
    """One value that many use, and one node that uses many; results of several outputs."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        branches = [torch.sin(x * float(i)) for i in range(12)]
        low, high = torch.cat(branches).aminmax(dim=0)
        values, order = torch.sort(x, dim=1)
        return low + high, values, order, x.exp()


class _RandomGraph(nn.Module):
    """``nodes`` random steps; each takes two of the results before it, near or far."""

    def __init__(self, seed: int, nodes: int = _NODES, *, several: bool = True) -> None:
        super().__init__()
        draw = random.Random(seed)  # noqa: S311 - a sample, no secret
        kinds = [kind for kind in _STEPS if several or kind != "halves"]
        self.layers = nn.ModuleList(nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
        self.steps = [
            (draw.choice(kinds), draw.randrange(max(0, i - 6), i + 2), draw.randrange(i + 2))
            for i in range(nodes)
        ]

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        values = [x, y]
        used: set[int] = set()
        for i, (kind, one, other) in enumerate(self.steps):
            values.append(_STEPS[kind](self, i, values[one], values[other]))
            used |= {one, other}
        ends = [value for i, value in enumerate(values) if i not in used]
        return torch.stack(ends).sum(0)


_Step = Callable[[_RandomGraph, int, torch.Tensor, torch.Tensor], torch.Tensor]
_STEPS: Mapping[str, _Step] = {
    "add": lambda graph, i, a, b: a + b,
    "multiply": lambda graph, i, a, b: a * torch.sigmoid(b),
    "relu": lambda graph, i, a, b: torch.relu(a - b),
    "matmul": lambda graph, i, a, b: a @ b.t(),
    "linear": lambda graph, i, a, b: graph.layers[i % len(graph.layers)](a) + b,
    "softmax": lambda graph, i, a, b: torch.softmax(a, -1) + b,
    "norm": lambda graph, i, a, b: torch.nn.functional.layer_norm(a + b, (_WIDTH,)),
    "views": lambda graph, i, a, b: a.reshape(2, -1).view(-1, _WIDTH).t() + b,
    "halves": lambda graph, i, a, b: torch.cat(a.chunk(2, 1)[::-1], 1) + b,
    "where": lambda graph, i, a, b: torch.where(a > 0, a, b),
}


def _square(*rows: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(SEED)
    return tuple(torch.randn(r, _WIDTH, generator=generator) for r in rows)


def _captured(
    name: str,
    make: Callable[[], nn.Module],
    inputs: tuple[torch.Tensor, ...],
    dynamic: Mapping[str, object] | None = None,
) -> Program:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        model = make().eval()
    return capture_source(model, inputs, dynamic=dynamic, name=name, registry=Registry(path=[]))


@cache
def graph(seed: int, *, several: bool = True) -> Program:
    """A random graph.

    :param several: nodes of several results may be in it.
    """
    name = f"random graph {seed}"
    make = lambda: _RandomGraph(seed, several=several)  # noqa: E731 - a parameter, bound
    return _captured(name, make, _square(_WIDTH, _WIDTH))


@cache
def layers() -> Program:
    """Weights of several layers, two of which are one."""
    return _captured("layers", _Layers, (torch.ones(2, 32),))


@cache
def _model(name: str) -> Program:
    make, inputs, dynamic = _MODELS[name]
    return _captured(name, make, inputs, dynamic)


_MODELS: Mapping[str, tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], Any]] = {
    "views": (_Views, _square(4), None),
    "state": (_State, _square(4), None),
    "sizes": (_Sizes, _square(4), {"x": {0: "rows"}}),
    "fans": (_Fans, _square(4), None),
}
_WHOLE = {"convolutional": CONVOLUTIONAL, "recurrent": RECURRENT}
_GRAPHS = 4


@cache
def _whole(name: str) -> Program:
    return _WHOLE[name].program(dynamic=False)


def programs(graphs: int = _GRAPHS) -> Iterator[Program]:
    """All of them, each captured when it is reached, and once.

    :param graphs: how many of the random graphs.
    """
    yield layers()
    yield from map(_model, _MODELS)
    yield from map(_whole, _WHOLE)
    yield from map(graph, range(graphs))
