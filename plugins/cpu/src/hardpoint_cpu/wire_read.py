"""Reading ``graph.json`` (see :mod:`hardpoint_cpu.wire`), trusting nothing in it."""

from __future__ import annotations

import json
from typing import Any

import torch

from hardpoint_cpu.operators import Operators, UnknownOperatorError
from hardpoint_cpu.origin import artifact_error
from hardpoint_cpu.recipe import CPU, Recipe, Step, Sub, Value, Weight
from hardpoint_cpu.wire import FILE, FORMAT, NAMED

_LIMIT = 256 * 1024 * 1024  # bytes of JSON; a graph of 100,000 nodes takes about 10 MB
_DEPTH = 32  # lists in lists; Python's own parser gives up at 200


def decode(data: bytes | memoryview, operators: Operators, device: torch.device = CPU) -> Recipe:
    """Read a file that :func:`encode` made, trusting nothing in it.

    :param device: where it is to run; what the graph makes, it makes there.
    :raises ArtifactError: damaged, hostile, of another format, or naming unknown operators.
    """
    try:
        if len(data) > _LIMIT:
            raise _DamagedError(f"it has {len(data)} bytes, the limit is {_LIMIT}")
        parsed = json.loads(bytes(data))
        found = parsed.get("format") if isinstance(parsed, dict) else None
        if found != FORMAT:
            raise _DamagedError(f"it is of format {found!r}, this version reads {FORMAT}")
        weights = parsed.get("weights")
        if not isinstance(weights, list) or not all(isinstance(w, str) for w in weights):
            raise _DamagedError("its weights are not a list of names")
        return _Reader(operators, tuple(weights), device).recipe(parsed)
    except UnknownOperatorError as error:
        raise artifact_error(
            f"{FILE} cannot run here",
            cause=str(error),
            remedy="compile the segment again with this version",
        ) from error
    except (_DamagedError, ValueError, RecursionError) as error:
        raise artifact_error(
            f"{FILE} is damaged", cause=str(error), remedy="compile the segment again"
        ) from error


class _DamagedError(Exception):
    """The file does not hold what it should; the text says what."""


class _Reader:
    def __init__(self, operators: Operators, weights: tuple[str, ...], at: torch.device) -> None:
        self._operators = operators
        self._weights = weights
        self._device = at

    def recipe(self, data: object) -> Recipe:
        """One graph, checked."""
        inputs = _field(data, "inputs", int)
        if isinstance(inputs, bool) or not 0 <= inputs <= 1_000_000:
            raise _DamagedError(f"a graph has {inputs!r} inputs")
        inner = _Reader(self._operators, (), self._device)
        graphs = tuple(inner.recipe(g) for g in _field(data, "graphs", list))
        functions = [self._operators.find(_text(name)) for name in _field(data, "ops", list)]
        steps: list[Step] = []
        for i, entry in enumerate(_field(data, "nodes", list)):
            if not isinstance(entry, list) or len(entry) not in (2, 3):
                raise _DamagedError(f"node {i} is not [op, args, kwargs]")
            op, args, kwargs = entry[0], entry[1], entry[2] if len(entry) == 3 else {}
            if type(op) is not int or not 0 <= op < len(functions):
                raise _DamagedError(f"node {i} names operator {op!r} of {len(functions)}")
            if not isinstance(args, list) or not isinstance(kwargs, dict):
                raise _DamagedError(f"node {i} has no arguments")
            known = (inputs + i, len(graphs))
            steps.append(
                Step(
                    functions[op],
                    tuple(self._argument(a, known) for a in args),
                    {_identifier(k): self._argument(v, known) for k, v in kwargs.items()},
                )
            )
        outputs = self._argument(
            {"tuple": _field(data, "outputs", list)}, (inputs + len(steps), len(graphs))
        )
        return Recipe(inputs, self._weights, tuple(steps), outputs, graphs)

    def _argument(self, value: Any, known: tuple[int, int], depth: int = 0) -> Any:
        """One argument; ``known`` values and sub-graphs exist so far."""
        if depth > _DEPTH:
            raise _DamagedError(f"an argument is nested more than {_DEPTH} deep")
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, list):
            return [self._argument(v, known, depth + 1) for v in value]
        if not isinstance(value, dict) or len(value) != 1:
            raise _DamagedError("an argument is neither a value nor one tagged value")
        [(tag, inside)] = value.items()
        if tag == "v":
            return Value(_number(inside, known[0], "value"))
        if tag == "w":
            return Weight(_number(inside, len(self._weights), "weight"))
        if tag == "g":
            return Sub(_number(inside, known[1], "sub-graph"))
        if tag == "tuple" and isinstance(inside, list):
            return tuple(self._argument(v, known, depth + 1) for v in inside)
        if tag == "dict" and isinstance(inside, dict):
            return {k: self._argument(v, known, depth + 1) for k, v in inside.items()}
        if tag == "device" and inside == "cpu":
            return self._device
        return _constant(tag, inside)


def _constant(tag: str, inside: Any) -> Any:
    """A constant that JSON has no form for."""
    if tag == "float" and inside in ("inf", "-inf", "nan"):
        return float(inside)
    if tag == "complex" and isinstance(inside, list) and len(inside) == 2:
        return complex(float(_text(inside[0])), float(_text(inside[1])))
    if tag in NAMED and isinstance(inside, str):
        found = getattr(torch, inside, None)
        if isinstance(found, NAMED[tag]):
            return found
    raise _DamagedError(f"the argument {tag}={inside!r} is unknown")


def _field(data: object, name: str, kind: type) -> Any:
    if not isinstance(data, dict) or not isinstance(data.get(name), kind):
        raise _DamagedError(f"a graph lacks {name!r}")
    return data[name]


def _number(value: object, limit: int, what: str) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise _DamagedError(f"it uses {what} {value!r} of {limit}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _DamagedError(f"{value!r} is not a name")
    return value


def _identifier(value: str) -> str:
    if not value.isidentifier():
        raise _DamagedError(f"{value!r} is not the name of an argument")
    return value
