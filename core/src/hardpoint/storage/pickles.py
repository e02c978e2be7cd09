"""Pickles of plain data, read without running anything: what serializers share for such formats.

A pickle is a program for a small stack machine; Python's own machine imports what the program names
and calls it. This one calls nothing at all. Names must stand on the caller's list and become
:class:`Name`, calls become :class:`Call`, both inert; what they mean is for the caller to say.

Time and memory are bounded by the pickle's length: no operation makes more than it takes bytes. The
opcodes: https://github.com/python/cpython/blob/main/Lib/pickletools.py
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hardpoint.storage.refusal import show

# A number of more bytes than this is in no file of weights, and slow to turn into an int.
_LONGEST_INT = 32
_SCALARS = (str, int, float, bool, bytes, type(None))


class PickleRefused(ValueError):  # noqa: N818 - it says what it is
    """A pickle that is broken, or that wants what plain data does not need."""


class Name(NamedTuple):
    """A global that the pickle names; it was not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Call:
    """What would be made by calling ``name``; nothing was called.

    :ivar state: what would have been given to ``__setstate__``; ``None`` if nothing.
    :ivar items: (key, value) pairs that would have been set afterwards, as they were given.
    """

    name: Name
    arguments: tuple[Any, ...]
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)


class Persistent(NamedTuple):
    """An object that stands outside the pickle, by the id that it has there."""

    id: Any


def read(
    data: bytes, *, names: Container[tuple[str, str]], most: int, persistent: bool = False
) -> Any:
    """What the pickle ``data`` describes: plain Python objects, :class:`Name`, :class:`Call`.

    Objects may be shared and lists and dicts may hold themselves: walk them by a schema, or count.

    :param names: (module, name) of each global that may be named.
    :param most: operations, and with them objects, that it may take.
    :param persistent: whether it may speak of objects that stand outside.
    :raises PickleRefused: anything else than one whole pickle of plain data and those names.
    """
    machine = _Machine(data, names, persistent)
    step = _STEPS.get
    try:
        for _ in range(most):
            code = data[machine.at]
            machine.at += 1
            # Most of what pickles do is to remember, to recall and to say small numbers.
            if code == 0x94:  # MEMOIZE
                machine.remember(len(machine.memo))
                continue
            if code == 0x68:  # BINGET
                machine.recall(data[machine.at])
                machine.at += 1
                continue
            if code == 0x4B:  # BININT1
                machine.stack.append(data[machine.at])
                machine.at += 1
                continue
            if code == 0x2E:  # STOP
                return machine.result()
            run = step(code)
            if run is None:
                raise PickleRefused(f"operation 0x{code:02x} at byte {machine.at - 1} is not known")
            run(machine)
    except (IndexError, struct.error):
        raise PickleRefused(f"it is cut short or broken at byte {machine.at}") from None
    except UnicodeDecodeError:
        raise PickleRefused(f"the text before byte {machine.at} is not UTF-8") from None
    raise PickleRefused(f"it takes more than {most} operations")


class _Machine:
    """A stack, the stacks that marks set aside, and the memo."""

    def __init__(self, data: bytes, names: Container[tuple[str, str]], persistent: bool) -> None:
        self.data = data
        self.at = 0
        self.names = names
        self.persistent = persistent
        self.stack: list[Any] = []
        self.aside: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.aside:
            raise PickleRefused("it does not end with one object")
        if self.at != len(self.data):
            raise PickleRefused(f"{len(self.data) - self.at} bytes follow its end")
        return self.stack[0]

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.data):
            raise PickleRefused(f"{count} bytes are announced at byte {self.at}, past its end")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, count: int) -> int:
        at, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise IndexError
        return int.from_bytes(self.data[at : self.at], "little")

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 1024)
        if end < 0:
            raise PickleRefused(f"a line without end begins at byte {self.at}")
        text = self.data[self.at : end].decode("utf-8")
        self.at = end + 1
        return text

    def marked(self) -> list[Any]:
        """What is above the last mark; the mark goes."""
        found, self.stack = self.stack, self.aside.pop()
        return found

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleRefused("a global is named by something that is not text")
        if (module, name) not in self.names:
            # Shown: what others wrote may hold what a terminal obeys.
            what = show(f"{module[:100]}.{name[:100]}")[1:-1]
            raise PickleRefused(f"it names {what}, which plain data does not need")
        self.stack.append(Name(module, name))

    def call(self) -> None:
        arguments, target = self.stack.pop(), self.stack.pop()
        if not isinstance(target, Name) or not isinstance(arguments, tuple):
            raise PickleRefused("it calls something that is no name, or without arguments")
        self.stack.append(Call(target, arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, Call) or target.state is not None or state is None:
            raise PickleRefused("it sets a state where none belongs, or twice")
        target.state = state

    def add(self, target: Any, values: list[Any]) -> None:
        if isinstance(target, list):
            target.extend(values)
        else:
            raise PickleRefused("it appends to something that is no list")

    def set(self, target: Any, flat: list[Any]) -> None:
        if len(flat) % 2:
            raise PickleRefused("it sets a key without a value")
        if isinstance(target, Call):
            target.items.extend(zip(flat[::2], flat[1::2], strict=True))
        elif isinstance(target, dict):
            for key, value in zip(flat[::2], flat[1::2], strict=True):
                # Hashing deep tuples recurses without a limit; these need no walk.
                if not isinstance(key, Call) and type(key) not in _SCALARS:
                    raise PickleRefused(f"a dict has a key that is a {type(key).__name__}")
                if key in target:
                    raise PickleRefused("a key stands twice in one dict")
                target[key] = value
        else:
            raise PickleRefused("it sets a key of something that is no dict")

    def remember(self, key: int) -> None:
        if key in self.memo:
            raise PickleRefused(f"it remembers two objects as number {key}")
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        if key not in self.memo:
            raise PickleRefused(f"it recalls number {key}, which it never remembered")
        self.stack.append(self.memo[key])

    def long(self, count: int) -> None:
        if count > _LONGEST_INT:
            raise PickleRefused(f"a whole number has {count} bytes; at most {_LONGEST_INT} may be")
        self.stack.append(int.from_bytes(self.take(count), "little", signed=True))

    def outside(self) -> None:
        if not self.persistent:
            raise PickleRefused("it speaks of objects that stand outside of it")
        self.stack.append(Persistent(self.stack.pop()))

    def protocol(self) -> None:
        if self.at != 1 or not 2 <= self.number(1) <= 5:
            raise PickleRefused("its protocol is none of 2 to 5")

    def last(self, count: int) -> None:
        """A tuple of the last objects."""
        if len(self.stack) < count:
            raise PickleRefused("it takes more objects than there are")
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def onto(self, put: Callable[[Any, list[Any]], None]) -> None:
        """Put what is above the last mark into the object below it."""
        values = self.marked()
        put(self.stack[-1], values)

    def close(self) -> None:
        """A tuple of what is above the last mark."""
        values = tuple(self.marked())
        self.stack.append(values)

    def mark(self) -> None:
        self.aside.append(self.stack)
        self.stack = []


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    return lambda m: m.stack.append(make(m))


def _text(size: int) -> Callable[[_Machine], None]:
    return _push(lambda m: m.take(m.number(size)).decode("utf-8"))


def _one_set(m: _Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set(m.stack[-1], [key, value])


def _stack_global(m: _Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.name(module, name)


def _frame(m: _Machine) -> None:
    if m.number(8) > len(m.data) - m.at:
        raise PickleRefused("a frame is longer than the file")


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.protocol,
    0x95: _frame,
    ord("("): _Machine.mark,
    ord("0"): lambda m: m.stack.pop() and None,
    ord("N"): _push(lambda m: None),
    0x88: _push(lambda m: True),
    0x89: _push(lambda m: False),
    ord("M"): lambda m: m.stack.append(m.number(2)),
    ord("J"): _push(lambda m: int.from_bytes(m.take(4), "little", signed=True)),
    0x8A: lambda m: m.long(m.number(1)),
    0x8B: lambda m: m.long(m.number(4)),
    ord("G"): _push(lambda m: struct.unpack(">d", m.take(8))[0]),
    ord("X"): _text(4),
    0x8C: _text(1),
    0x8D: _text(8),
    ord("B"): _push(lambda m: m.take(m.number(4))),
    ord("C"): _push(lambda m: m.take(m.number(1))),
    0x8E: _push(lambda m: m.take(m.number(8))),
    ord(")"): _push(lambda m: ()),
    0x85: lambda m: m.last(1),
    0x86: lambda m: m.last(2),
    0x87: lambda m: m.last(3),
    ord("t"): _Machine.close,
    ord("]"): _push(lambda m: []),
    ord("a"): lambda m: m.add(m.stack[-2], [m.stack.pop()]),
    ord("e"): lambda m: m.onto(m.add),
    ord("}"): _push(lambda m: {}),
    ord("s"): _one_set,
    ord("u"): lambda m: m.onto(m.set),
    ord("c"): lambda m: m.name(m.line(), m.line()),
    0x93: _stack_global,
    ord("R"): _Machine.call,
    0x81: _Machine.call,
    ord("b"): _Machine.build,
    ord("q"): lambda m: m.remember(m.number(1)),
    ord("r"): lambda m: m.remember(m.number(4)),
    ord("j"): lambda m: m.recall(m.number(4)),
    ord("Q"): _Machine.outside,
}
