"""The metadata of a file: typed values, as text."""

from __future__ import annotations

import json
import struct

from hardpoint_gguf.cursor import Cursor
from hardpoint_gguf.refuse import show

MAX_PAIRS = 1 << 16
MAX_KEY = (1 << 16) - 1  # the format's own
SHOWN = 1024  # elements of an array that is given whole
_FIRST = 8  # elements that are given of a longer one
_MAX_TEXT = 1 << 24
_MAX_TEXTS = 1 << 26  # bytes of all values together
_MAX_SHOWN = 1 << 20  # elements of all arrays that are given
_MAX_DEPTH = 4
# Strings and arrays that are passed over one by one; a vocabulary of 256,000 has half a million.
_MAX_STEPS = 1 << 22

_BOOL, _STRING, _ARRAY = 7, 8, 9
UINT32 = 4
_NUMBERS = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    UINT32: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    _BOOL: ("bool", struct.Struct("<B")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}
_NAMES = {**{key: name for key, (name, _) in _NUMBERS.items()}, _STRING: "string", _ARRAY: "array"}
# The least bytes that an element takes: a string its length, an array its type and length.
_LEAST = {**{key: form.size for key, (_, form) in _NUMBERS.items()}, _STRING: 8, _ARRAY: 12}
_PAIR = 8 + 1 + 4 + 1  # bytes of the shortest pair: a key of one letter, a type, a byte

Value = object


class Values:
    """Reads the pairs of one header, within bounds of time and memory for all of them together."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._text = 0
        self._steps = 0
        self._shown = 0
        self.alignment: int | None = None

    def read(self, count: int) -> dict[str, str]:
        """``count`` pairs: numbers and flags as JSON has them, text as it is, arrays as JSON.

        :raises WeightsError: the file has fewer, or they break a rule.
        """
        cursor = self._cursor
        if count > MAX_PAIRS or count * _PAIR > cursor.left:
            raise cursor.broken(
                f"it states {count} pairs of metadata; {cursor.left} bytes follow, and at most"
                f" {MAX_PAIRS} pairs are allowed"
            )
        found: dict[str, str] = {}
        for _ in range(count):
            key = cursor.text("a key", MAX_KEY)
            if not key or key in found:
                raise cursor.broken(f"the key {show(key)} is empty, or stands there twice")
            kind = cursor.u32(f"the type of {show(key)}")
            value = self._value(kind, key, 0)
            if key == "general.alignment":
                if kind != UINT32 or not isinstance(value, int):
                    raise cursor.broken(f"{key} is of type {_NAMES[kind]}, not uint32")
                self.alignment = value
            self._count_text(len(key))
            found[key] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return found

    def _count_text(self, length: int) -> None:
        self._text += length
        if self._text > _MAX_TEXTS:
            raise self._cursor.broken(f"its metadata has more than {_MAX_TEXTS} bytes of text")

    def _value(self, kind: int, key: str, depth: int) -> Value:
        what = f"the value of {show(key)}"
        if kind == _STRING:
            text = self._cursor.text(what, _MAX_TEXT)
            self._count_text(len(text))
            return text
        if kind == _ARRAY:
            return self._array(key, depth)
        if kind not in _NUMBERS:
            raise self._cursor.broken(f"{what} has type {kind}, which the format does not know")
        _, form = _NUMBERS[kind]
        return self._number(kind, self._cursor.take(form.size, what), what)

    def _number(self, kind: int, raw: bytes, what: str) -> Value:
        name, form = _NUMBERS[kind]
        number: int | float = form.unpack(raw)[0]
        if kind == _BOOL:
            if number > 1:
                raise self._cursor.broken(f"{what} is a flag of byte {number}, neither 0 nor 1")
            return bool(number)
        return _shortest(number, raw) if name == "float32" else number

    def _array(self, key: str, depth: int) -> Value:
        cursor, what = self._cursor, f"the array {show(key)}"
        if depth >= _MAX_DEPTH:
            raise cursor.broken(f"{what} is nested more than {_MAX_DEPTH} deep")
        kind, count = cursor.u32(what), cursor.u64(what)
        if kind not in _LEAST:
            raise cursor.broken(f"{what} holds type {kind}, which the format does not know")
        if count > cursor.left // _LEAST[kind]:
            raise cursor.short(count * _LEAST[kind], what)
        if kind in (_STRING, _ARRAY):
            self._steps += count
            if self._steps > _MAX_STEPS:
                raise cursor.broken(
                    f"{what} has {count} elements; at most {_MAX_STEPS} strings and arrays are"
                    " allowed"
                )
        self._shown += count if count <= SHOWN else _FIRST
        if self._shown > _MAX_SHOWN:
            raise cursor.broken(f"its short arrays have more than {_MAX_SHOWN} elements together")
        if count <= SHOWN:
            return [self._value(kind, key, depth + 1) for _ in range(count)]
        first = [self._value(kind, key, depth + 1) for _ in range(_FIRST)]
        rest = count - _FIRST
        if kind == _STRING:
            cursor.skip_texts(rest, what)
        elif kind == _ARRAY:
            for _ in range(rest):
                self._array(key, depth + 1)
        else:
            cursor.skip(rest * _LEAST[kind], what)
        return {"array": _NAMES[kind], "length": count, "first": first}


def _shortest(number: float, raw: bytes) -> float:
    """The shortest decimal that is the same float32: 1e-05, not 9.999999747378752e-06."""
    for digits in range(6, 9):
        short = float(f"{number:.{digits}g}")
        # Rounded up, the largest would be infinite, which struct refuses.
        if abs(short) < 3.4e38 and struct.pack("<f", short) == raw:
            return short
    return number
