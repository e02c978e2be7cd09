"""The core's machine for pickles of plain data, alone."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from guard import watched
from invariants import demand
from target import Target, files
from wrapped import pickle_of

from hardpoint.storage.pickles import Call, Name, Persistent, PickleRefused, read

_NAMES = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch", "Size"),
    ("torch", "FloatStorage"),
}
_MOST = 10_000  # operations
_KINDS = (Call, Name, Persistent, dict, list, tuple, str, bytes, int, float, bool, type(None))


def run(data: bytes, folder: Path) -> None:
    persistent = bool(data[:1] > b"\x7f")
    with watched(folder):
        try:
            found = read(data[1:], names=_NAMES, most=_MOST, persistent=persistent)
        except PickleRefused as error:
            demand(len(str(error)) < 1000, "a cause of a thousand characters")
            demand(str(error).isprintable(), "a cause that is not printable", repr(str(error)))
            return
    _inert(found, persistent)


def _inert(found: object, persistent: bool) -> None:
    """All that it is made of is plain, however often parts are shared."""
    todo, seen = [found], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        demand(type(value) in _KINDS, f"it made a {type(value).__name__}")
        if isinstance(value, Name):
            demand(value in _NAMES, "it names what it must not")
        elif isinstance(value, Call):
            demand(isinstance(value.name, Name), "a call of no name")
            todo += [value.name, value.arguments, value.state, value.items]
        elif isinstance(value, Persistent):
            demand(persistent, "an object from outside")
            todo.append(value.id)
        elif isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple)):
            todo += value


def seeds() -> Iterator[bytes]:
    plain = OrderedDict(a=[1, -2, 1 << 70, 2.5, None, True], b=("x", b"y", {"z": ()}))
    for protocol in (2, 3, 4, 5):
        yield b"\0" + pickle.dumps(plain, protocol)
    for raw in filter(None, map(pickle_of, files("checkpoint", "golden/*.pt", "hostile/*.pt"))):
        yield b"\x80" + raw


def words() -> Iterator[bytes]:
    yield from (f"c{module}\n{name}\n".encode() for module, name in sorted(_NAMES))
    yield from (
        bytes([code])
        for code in b"(0NMJGXBC)\x85\x86\x87t]ae}sucRbqrjQ\x88\x89\x8a\x8b\x8c\x8d\x8e\x93\x94\x95\x81"
    )
    yield b"cposix\nsystem\n"


TARGET = Target(run=run, seeds=seeds, words=words, longest=4096)
