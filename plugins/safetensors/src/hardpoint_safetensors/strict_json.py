"""JSON as a file format: one value, no duplicate keys, no NaN, no number of unbounded length.

Python's parser is lenient where two readers of one file could differ; what differs is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import msgspec

from hardpoint_safetensors.refuse import show

# More digits than any offset or size needs; Python's own limit (4300) can be switched off.
_MAX_DIGITS = 20
_PYTHONS_DIGITS = 4300
_BEFORE_COLON = (b'"', b" ", b"\t", b"\n", b"\r")
_HEADER = msgspec.json.Decoder(dict[str, dict[str, str | int | list[int]]])

_Pairs = Callable[[list[tuple[str, object]]], dict[str, object]]


def loads(raw: bytes, *, floats: bool = False) -> object:
    """The value that ``raw`` spells.

    :param floats: whether numbers with a fraction or an exponent may stand in it.
    :raises ValueError: not strict JSON; the message says why, in words.
    """
    plain = _plain(raw)
    if plain is not None:
        return plain
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    pairs = _unique_and_whole if "\\u" in text else _unique
    try:
        # Python bounds the digits of numbers by itself, in C, unless that was switched off.
        bounded = 0 < getattr(sys, "get_int_max_str_digits", int)() <= _PYTHONS_DIGITS
        integer = int if bounded else _bounded_int
        try:
            return _parse(text, pairs, integer, floats=floats)
        except ValueError:  # said again, in our words
            return _parse(text, pairs, _bounded_int, floats=floats)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} (at character {error.pos})") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _plain(raw: bytes) -> dict[str, dict[str, str | int | list[int]]] | None:
    """What headers usually are, in half the time; ``None``: it is something else, or broken.

    The decoder is strict but for keys that stand twice: plain counting shows that there is none.
    """
    if b"\\" in raw:  # a string may hold anything
        return None
    try:
        value = _HEADER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):  # said in words by the other way
        return None
    keys = len(value) + sum(map(len, value.values()))
    # Each pair of the text has a colon, right after a quotation mark or white space. With as many
    # keys as colons none was lost. (Colons of strings make it more.)
    if raw.count(b":") == keys or sum(raw.count(mark + b":") for mark in _BEFORE_COLON) == keys:
        return value
    return None


def _parse(text: str, pairs: _Pairs, integer: Callable[[str], int], *, floats: bool) -> object:
    value: object = json.loads(
        text,
        object_pairs_hook=pairs,
        parse_int=integer,
        parse_float=_float if floats else _no_float,
        parse_constant=_no_constant,
    )
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} stands there twice")
    return made


def _unique_and_whole(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = _unique(pairs)
    for key, value in pairs:
        _whole_characters(key)
        if type(value) is str:
            _whole_characters(value)
    return made


def _whole_characters(text: str) -> None:
    """Refuse half a surrogate pair: an escape can spell it, UTF-8 cannot."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"{show(text)} holds half a surrogate pair") from error


def _bounded_int(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _float(text: str) -> float:
    if len(text) > _MAX_DIGITS * 2:
        raise ValueError(f"a number of {len(text)} characters")
    return float(text)


def _no_float(text: str) -> float:
    raise ValueError(f"{show(text)} where only whole numbers may stand")


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")
