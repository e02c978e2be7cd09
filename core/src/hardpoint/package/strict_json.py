"""JSON that means one thing only: no duplicate keys, no NaN, bounded size and depth."""

from __future__ import annotations

import json
import math
from typing import Any

from hardpoint.package.refusal import MalformedError, first_twice

MAX_DEPTH = 200


def parse(data: bytes | memoryview, *, what: str, max_bytes: int) -> Any:
    """The value that ``data`` holds.

    :param what: how messages call it, e.g. ``"entry 'models/model.json'"``.
    :raises MalformedError: not UTF-8, not JSON, too big, too deep, a key twice, or a number that
        is not finite.
    """
    if len(data) > max_bytes:
        raise MalformedError(f"{what} has {len(data)} bytes; at most {max_bytes} are read as JSON")
    try:
        value = json.loads(
            bytes(data).decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        _check_depth(value)
    except RecursionError:
        raise MalformedError(f"{what} is nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise MalformedError(f"{what} is not valid JSON: {error}") from None
    return value


def canonical(value: object) -> bytes:
    """The one way to write ``value``: sorted keys, no spaces, UTF-8.

    :raises ValueError: a number that is not finite.
    :raises TypeError: something that JSON cannot hold.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = first_twice(name for name, _ in pairs)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _check_depth(value: object) -> None:
    """:raises RecursionError: deeper than :data:`MAX_DEPTH`; a walk by levels cannot overflow."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise RecursionError
