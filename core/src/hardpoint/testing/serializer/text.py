"""Damage to the JSON in the head of a file, where its format has some there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from hardpoint.testing.serializer.damage import Case

_SEARCHED = 64  # bytes of the head in which the text must begin
_DEEP = 100_000
_NUMBERS = ("-1", "2147483648", "9223372036854775808", "18446744073709551616", "6.4e1", "1e999",
            "9" * 5000, "true", "null", '"1"')  # fmt: skip
_LEAVES: tuple[Any, ...] = (None, True, -1, 1 << 63, 1.5, "x", [], {}, [[]], {"": {}})
_MOST = 40  # places of one kind that are damaged


def damaged_text(good: bytes) -> Iterator[Case]:
    """The text replaced, damaged as a value and as characters; nothing where there is none."""
    found = _find(good)
    if found is None:
        return
    head, text, tail = found
    yield from _replaced(head, text, tail)
    for what, new in [*_by_value(json.loads(text)), *_by_number(text)]:
        yield Case(what, _join(head, text, new, tail), "coherent")


def _replaced(head: bytes, text: bytes, tail: bytes) -> Iterator[Case]:
    inside = text.strip()[1:-1]
    texts = {
        "objects nested 100,000 deep": b'{"a":' * _DEEP,
        "lists nested 100,000 deep": b'{"a":' + b"[" * _DEEP,
        "closed lists nested 100,000 deep": b'{"a":' + b"[" * _DEEP + b"]" * _DEEP + b"}",
        "two objects": b"{}{}",
        "a list": b"[1, 2]",
        "no JSON": b"{nonsense}",
        "bad UTF-8": b'{"\xff":1}',
        "half a surrogate pair": b'{"\\ud800":1}',
        "NaN": b'{"a":NaN}',
        "its text twice over": text + text,
        "every key twice": b"{" + inside + b"," + inside + b"}",
        "a name of a megabyte and nothing else": b'{"' + b"x" * (1 << 20) + b'":0}',
        "a name that writes to terminals": b'{"\\u001b[2J' + b"x" * 100_000 + b'":0}',
        "a number of a million digits": b'{"a":' + b"1" * 1_000_000 + b"}",
        "100,000 empty entries": b"{" + b",".join(b'"%d":{}' % i for i in range(100_000)) + b"}",
    }
    for what, new in texts.items():
        case = f"its text replaced by {what}"
        yield Case(case, _join(head, text, new, tail), "refused")


def _by_value(value: Any) -> Iterator[tuple[str, bytes]]:
    """Each entry replaced by others, left out, or given a further one."""
    for path in list(_paths(value))[:_MOST]:
        where = "/".join(map(str, path)) or "the whole"
        for leaf in _LEAVES:
            yield (
                f"{where} in its text replaced by {json.dumps(leaf)}",
                json.dumps(_with(value, path, leaf)).encode(),
            )
        if path:
            yield f"{where} left out of its text", json.dumps(_without(value, path)).encode()
        at = _at(value, path)
        if isinstance(at, dict):
            more = _with(value, path, {**at, "further": 1})
            yield f"a further entry in {where}", json.dumps(more).encode()
        if isinstance(at, list):
            more = _with(value, path, [*at, 1])
            yield f"a further item in {where}", json.dumps(more).encode()


def _by_number(text: bytes) -> Iterator[tuple[str, bytes]]:
    """Each number replaced as characters, also by what JSON cannot spell as a value."""
    for match in list(re.finditer(rb"(?<![\w.\"-])\d+(?![\w.\"])", text))[:_MOST]:
        for number in _NUMBERS:
            new = text[: match.start()] + number.encode() + text[match.end() :]
            yield f"the number {match.group().decode()} in its text as {number[:24]}", new


def _find(good: bytes) -> tuple[bytes, bytes, bytes] | None:
    """What stands before the text, the text, and what follows; blanks go with the text."""
    start = good.find(b"{", 0, _SEARCHED)
    if start < 0:
        return None
    rest = good[start:].decode("utf-8", "surrogateescape")
    try:
        _, characters = json.JSONDecoder().raw_decode(rest)
    except ValueError:
        return None
    length = len(rest[:characters].encode("utf-8", "surrogateescape"))
    end = start + length
    while good[end : end + 1] == b" ":
        end += 1
    return good[:start], good[start:end], good[end:]


def _join(head: bytes, old: bytes, new: bytes, tail: bytes) -> bytes:
    """The file with another text, filled up with blanks where it is shorter.

    Where it is longer, the length that the head states is corrected, if one is found there.
    """
    if len(new) <= len(old):
        return head + new.ljust(len(old)) + tail
    for width in (8, 4, 2):
        stated = len(old).to_bytes(width, "little") if len(old) >> (8 * width) == 0 else b""
        if stated and stated in head and not len(new) >> (8 * width):
            head = head.replace(stated, len(new).to_bytes(width, "little"))
            break
    return head + new + tail


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, key))


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    made = dict(value) if isinstance(value, dict) else list(value)
    made[path[0]] = _with(made[path[0]], path[1:], new)
    return made


def _without(value: Any, path: tuple[Any, ...]) -> Any:
    made = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del made[path[0]]
    else:
        made[path[0]] = _without(made[path[0]], path[1:])
    return made
