"""What the opcodes of a pickle do: groups, the memo, and what asks for code."""

from __future__ import annotations

from hardpoint_checkpoint import literals
from hardpoint_checkpoint.machine import Machine, Unknown
from hardpoint_checkpoint.opcode_table import OPCODES, op
from hardpoint_checkpoint.refuse import NEEDS_MORE
from hardpoint_checkpoint.standins import Items, Pairs

__all__ = ["OPCODES", "literals"]

_LAST_PROTOCOL = 5


# --- groups


@op("(")
def _mark(m: Machine) -> None:
    m.mark()


@op("t")
def _tuple(m: Machine) -> None:
    group = m.group()
    m.stack.append(tuple(group))


@op("\x85", "\x86", "\x87")
def _short_tuple(m: Machine) -> None:
    count = m.data[m.op_at] - 0x84
    if len(m.stack) < count:
        m.no("it takes something from an empty stack")
    m.stack[-count:] = [tuple(m.stack[-count:])]


@op("l")
def _list(m: Machine) -> None:
    group = m.group()
    m.stack.append(group)


@op("d")
def _dict(m: Machine) -> None:
    group, made = m.group(), Pairs()
    m.set_pairs(made, group)
    m.stack.append(made)


@op("\x91")
def _frozenset(m: Machine) -> None:
    group = m.group()
    m.stack.append(Items(group))


@op("a")
def _append(m: Machine) -> None:
    value = m.stack.pop()
    m.extend(m.stack[-1], [value], list)


@op("e")
def _appends(m: Machine) -> None:
    group = m.group()
    m.extend(m.stack[-1], group, list)


@op("\x90")
def _add_items(m: Machine) -> None:
    group = m.group()
    m.extend(m.stack[-1], group, Items)


@op("s")
def _set_item(m: Machine) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    m.set_pairs(m.stack[-1], [key, value])


@op("u")
def _set_items(m: Machine) -> None:
    group = m.group()
    m.set_pairs(m.stack[-1], group)


# --- the stack and the memo


@op("0")
def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.group()


@op("1")
def _pop_mark(m: Machine) -> None:
    m.group()


@op("2")
def _duplicate(m: Machine) -> None:
    m.stack.append(m.stack[-1])


def _index(m: Machine) -> int:
    line = m.line()
    if not line.isdigit() or len(line) > 10:
        m.no("a number that is none, or too long")
    return int(line)


@op("p", "q", "r")
def _put(m: Machine) -> None:
    code = m.data[m.op_at]
    m.put(_index(m) if code == ord("p") else m.number(1 if code == ord("q") else 4))


@op("\x94")
def _memoize(m: Machine) -> None:
    m.put(len(m.memo))


@op("g", "h", "j")
def _get(m: Machine) -> None:
    code = m.data[m.op_at]
    m.get(_index(m) if code == ord("g") else m.number(1 if code == ord("h") else 4))


@op("\x80")
def _protocol(m: Machine) -> None:
    version = m.number(1)
    if version > _LAST_PROTOCOL:
        m.no(f"protocol {version} of pickles is unknown")


@op("\x95")
def _frame(m: Machine) -> None:
    """How much to read ahead; it is all here."""
    m.number(8)


# --- what asks for code


@op("c")
def _global(m: Machine) -> None:
    module, name = m.text(m.line()), m.text(m.line())
    m.stack.append(m.name(module, name))


@op("\x93")
def _stack_global(m: Machine) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    if not isinstance(module, str) or not isinstance(name, str):
        m.no("it asks for a global whose name is no text", NEEDS_MORE)
    m.stack.append(m.name(module, name))


@op("R")
def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.stack[-1] = m.apply(m.stack[-1], args)


@op("\x81", "\x92")
def _new_object(m: Machine) -> None:
    kind = m.stack.pop(-2 if m.data[m.op_at] == 0x81 else -3)
    _instance(m, kind)
    del m.stack[-1 if m.data[m.op_at] == 0x81 else -2 :]
    m.stack.append(kind)


@op("i")
def _named_instance(m: Machine) -> None:
    module, name = m.text(m.line()), m.text(m.line())
    m.group()
    kind = m.name(module, name)
    _instance(m, kind)
    m.stack.append(kind)


@op("o")
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


@op("b")
def _build(m: Machine) -> None:
    """Attributes: a state_dict has versions of modules in them; nothing else has any."""
    m.stack.pop()
    goal = m.stack[-1]
    if not (isinstance(goal, Unknown) or (isinstance(goal, Pairs) and goal.ordered)):
        m.no("it gives attributes to something that has none", NEEDS_MORE)


@op("\x82", "\x83", "\x84")
def _extension(m: Machine) -> None:
    code = m.number({0x82: 1, 0x83: 2, 0x84: 4}[m.data[m.op_at]])
    m.no(f"it asks for extension {code}, a global by a number of this machine's", NEEDS_MORE)


@op("Q")
def _persistent(m: Machine) -> None:
    m.stack[-1] = m.load(m.stack[-1])


@op("P")
def _text_persistent(m: Machine) -> None:
    m.stack.append(m.load(m.text(m.line())))


@op("\x97", "\x98")
def _buffer(m: Machine) -> None:
    m.no("it refers to bytes outside of itself")
