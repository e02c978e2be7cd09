"""What each opcode of a pickle does to the :class:`Machine`: see Python's ``pickletools``."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from hardpoint_checkpoint.machine import Machine, Unknown
from hardpoint_checkpoint.refuse import NEEDS_MORE
from hardpoint_checkpoint.standins import Items, Pairs, Refused

Step = Callable[[Machine], None]
OPCODES: dict[int, Step] = {}
_LAST_PROTOCOL = 5
_FLOAT = struct.Struct(">d")


def _op(*codes: str) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        for code in codes:
            OPCODES[ord(code)] = step
        return step

    return register


def _pushes(code: str, value: Callable[[Machine], object]) -> None:
    OPCODES[ord(code)] = lambda m: m.stack.append(value(m))


# --- plain values

_pushes("N", lambda m: None)
_pushes("\x88", lambda m: True)
_pushes("\x89", lambda m: False)
_pushes("J", lambda m: int.from_bytes(m.take(4), "little", signed=True))
_pushes("K", lambda m: m.number(1))
_pushes("M", lambda m: m.number(2))
_pushes("\x8a", lambda m: m.integer(m.take(m.number(1))))
_pushes("\x8b", lambda m: m.integer(m.take(m.number(4))))
_pushes("G", lambda m: _FLOAT.unpack(m.take(8))[0])
_pushes("X", lambda m: m.text(m.take(m.number(4))))
_pushes("\x8c", lambda m: m.text(m.take(m.number(1))))
_pushes("\x8d", lambda m: m.text(m.take(m.number(8))))
# Python 2's str: torch.load takes it for UTF-8 as well.
_pushes("T", lambda m: m.text(m.take(m.number(4))))
_pushes("U", lambda m: m.text(m.take(m.number(1))))
_pushes("B", lambda m: m.take(m.number(4)))
_pushes("C", lambda m: m.take(m.number(1)))
_pushes("\x8e", lambda m: m.take(m.number(8)))
_pushes("\x96", lambda m: m.take(m.number(8)))
_pushes("]", lambda m: [])
_pushes("}", lambda m: Pairs())
_pushes(")", lambda m: ())
_pushes("\x8f", lambda m: Items())


@_op("I", "L")
def _decimal(m: Machine) -> None:
    """A number in digits; ``01`` and ``00`` are the truth values of old."""
    line = m.line()
    if line in (b"00", b"01"):
        m.stack.append(line == b"01")
        return
    digits = line.removesuffix(b"L")
    if not digits.removeprefix(b"-").isdigit() or len(digits) > 300:
        m.no("a number that is none, or too long")
    m.stack.append(int(digits))


@_op("F")
def _float(m: Machine) -> None:
    try:
        m.stack.append(float(m.line()))
    except ValueError:
        m.no("a number that is none")


@_op("S")
def _quoted(m: Machine) -> None:
    line = m.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        m.no("text without its quotes")
    try:
        m.stack.append(m.text(codecs.escape_decode(line[1:-1])[0]))
    except ValueError as error:
        if isinstance(error, Refused):
            raise
        m.no("text with a broken escape")


@_op("V")
def _escaped(m: Machine) -> None:
    try:
        m.stack.append(m.line().decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        m.no("text with a broken escape")


# --- groups


@_op("(")
def _mark(m: Machine) -> None:
    m.mark()


@_op("t")
def _tuple(m: Machine) -> None:
    group = m.group()
    m.stack.append(tuple(group))


@_op("\x85", "\x86", "\x87")
def _short_tuple(m: Machine) -> None:
    count = m.data[m.op_at] - 0x84
    if len(m.stack) < count:
        m.no("it takes something from an empty stack")
    m.stack[-count:] = [tuple(m.stack[-count:])]


@_op("l")
def _list(m: Machine) -> None:
    group = m.group()
    m.stack.append(group)


@_op("d")
def _dict(m: Machine) -> None:
    group, made = m.group(), Pairs()
    m.set_pairs(made, group)
    m.stack.append(made)


@_op("\x91")
def _frozenset(m: Machine) -> None:
    group = m.group()
    m.stack.append(Items(group))


@_op("a")
def _append(m: Machine) -> None:
    value = m.stack.pop()
    m.extend(m.stack[-1], [value], list)


@_op("e")
def _appends(m: Machine) -> None:
    group = m.group()
    m.extend(m.stack[-1], group, list)


@_op("\x90")
def _add_items(m: Machine) -> None:
    group = m.group()
    m.extend(m.stack[-1], group, Items)


@_op("s")
def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_pairs(m.stack[-1], [key, value])


@_op("u")
def _set_items(m: Machine) -> None:
    group = m.group()
    m.set_pairs(m.stack[-1], group)


# --- the stack and the memo


@_op("0")
def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.group()


@_op("1")
def _pop_mark(m: Machine) -> None:
    m.group()


@_op("2")
def _duplicate(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _index(m: Machine) -> int:
    line = m.line()
    if not line.isdigit() or len(line) > 10:
        m.no("a number that is none, or too long")
    return int(line)


@_op("p", "q", "r")
def _put(m: Machine) -> None:
    code = m.data[m.op_at]
    m.put(_index(m) if code == ord("p") else m.number(1 if code == ord("q") else 4))


@_op("\x94")
def _memoize(m: Machine) -> None:
    m.put(len(m.memo))


@_op("g", "h", "j")
def _get(m: Machine) -> None:
    code = m.data[m.op_at]
    m.get(_index(m) if code == ord("g") else m.number(1 if code == ord("h") else 4))


@_op("\x80")
def _protocol(m: Machine) -> None:
    version = m.number(1)
    if version > _LAST_PROTOCOL:
        m.no(f"protocol {version} of pickles is unknown")


@_op("\x95")
def _frame(m: Machine) -> None:
    """How much to read ahead; it is all here."""
    m.number(8)


# --- what asks for code


@_op("c")
def _global(m: Machine) -> None:
    module, name = m.text(m.line()), m.text(m.line())
    m.stack.append(m.name(module, name))


@_op("\x93")
def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        m.no("it asks for a global whose name is no text", NEEDS_MORE)
    m.stack.append(m.name(module, name))


@_op("R")
def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.apply(m.stack[-1], args)


@_op("\x81", "\x92")
def _new_object(m: Machine) -> None:
    kind = m.stack.pop(-2 if m.data[m.op_at] == 0x81 else -3)
    _instance(m, kind)
    del m.stack[-1 if m.data[m.op_at] == 0x81 else -2 :]
    m.stack.append(kind)


@_op("i")
def _named_instance(m: Machine) -> None:
    module, name = m.text(m.line()), m.text(m.line())
    m.group()
    kind = m.name(module, name)
    _instance(m, kind)
    m.stack.append(kind)


@_op("o")
def _grouped_instance(m: Machine) -> None:
    group = m.group()
    if not group:
        m.no("it takes something from an empty stack")
    _instance(m, group[0])
    m.stack.append(group[0])


def _instance(m: Machine, kind: object) -> None:
    """Nothing on the allow-list is made in this way."""
    if not isinstance(kind, Unknown):
        m.no("it makes an object of a class, where tensors and plain data need none", NEEDS_MORE)


@_op("b")
def _build(m: Machine) -> None:
    """Attributes: a state_dict has versions of modules in them; nothing else has any."""
    m.stack.pop()
    goal = m.stack[-1]
    if not (isinstance(goal, Unknown) or (isinstance(goal, Pairs) and goal.ordered)):
        m.no("it gives attributes to something that has none", NEEDS_MORE)


@_op("\x82", "\x83", "\x84")
def _extension(m: Machine) -> None:
    code = m.number({0x82: 1, 0x83: 2, 0x84: 4}[m.data[m.op_at]])
    m.no(f"it asks for extension {code}, a global by a number of this machine's", NEEDS_MORE)


@_op("Q")
def _persistent(m: Machine) -> None:
    m.stack[-1] = m.load(m.stack[-1])


@_op("P")
def _text_persistent(m: Machine) -> None:
    m.stack.append(m.load(m.text(m.line())))


@_op("\x97", "\x98")
def _buffer(m: Machine) -> None:
    m.no("it refers to bytes outside of itself")
