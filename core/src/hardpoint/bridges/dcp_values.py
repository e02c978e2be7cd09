"""Values that are no tensors (steps, learning rates), as JSON that gives them back exactly."""

from __future__ import annotations

import math
from typing import Any

_DEPTH = 100
_LARGEST = 1 << 63


def encode(value: Any, depth: int = _DEPTH) -> Any:
    """``value`` as what JSON can hold. An object of one key says what JSON has no word for.

    :raises ValueError: it is not made of None, bool, int, float, str, list, tuple and dict alone.
    """
    if depth == 0:
        raise ValueError(f"it is nested deeper than {_DEPTH} levels")
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        if not -_LARGEST <= value < _LARGEST:
            raise ValueError("it holds a whole number of more than 64 bits")
        return value
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind in (list, tuple):
        items = [encode(each, depth - 1) for each in value]
        return items if kind is list else {"tuple": items}
    if kind is dict:
        if not all(type(key) in (str, int, float, bool, type(None)) for key in value):
            raise ValueError("it holds a dict with a key that is not plain")
        return {"dict": [[encode(k, depth - 1), encode(v, depth - 1)] for k, v in value.items()]}
    raise ValueError(f"it holds a {kind.__module__}.{kind.__qualname__}")


def decode(value: Any) -> Any:
    """What :func:`encode` was given.

    :raises ValueError: it was given nothing that gives this.
    """
    if isinstance(value, list):
        return [decode(each) for each in value]
    if type(value) is int and not -_LARGEST <= value < _LARGEST:
        raise ValueError("a whole number has more than 64 bits")
    if not isinstance(value, dict):
        return value
    match value:
        case {"float": "nan" | "inf" | "-inf" as word, **rest} if not rest:
            return float(word)
        case {"tuple": list(items), **rest} if not rest:
            return tuple(decode(each) for each in items)
        case {"dict": list(pairs), **rest} if not rest:
            return _dict(pairs)
    raise ValueError(f"an object with {sorted(value)[:5]} is no value")


def _dict(pairs: list[Any]) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("a dict is not made of pairs")
        key = decode(pair[0])
        if isinstance(key, list | dict | tuple) or key in made:
            raise ValueError("a dict has a key twice, or one that is no plain one")
        made[key] = decode(pair[1])
    return made
