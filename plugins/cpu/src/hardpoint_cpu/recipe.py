"""A graph as an artifact holds it, read: numbered values, and the calls that make them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Value:
    """Argument: the value with this number."""

    index: int


@dataclass(frozen=True, slots=True)
class Weight:
    """Argument: the weight with this number."""

    index: int


@dataclass(frozen=True, slots=True)
class Sub:
    """Argument: the sub-graph with this number."""

    index: int


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A graph as read: ``inputs`` values come in, each step makes the next, ``outputs`` go out."""

    inputs: int
    weights: tuple[str, ...]
    steps: tuple[Step, ...]
    outputs: Any
    graphs: tuple[Recipe, ...]
