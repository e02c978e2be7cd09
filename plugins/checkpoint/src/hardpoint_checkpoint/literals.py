"""The opcodes that push plain values: numbers, text, bytes, and empty containers."""

from __future__ import annotations

import codecs
import struct

from hardpoint_checkpoint.machine import Machine
from hardpoint_checkpoint.opcode_table import op, pushes
from hardpoint_checkpoint.standins import Items, Pairs, Refused

_FLOAT = struct.Struct(">d")

pushes("N", lambda m: None)
pushes("\x88", lambda m: True)
pushes("\x89", lambda m: False)
pushes("J", lambda m: int.from_bytes(m.take(4), "little", signed=True))
pushes("K", lambda m: m.number(1))
pushes("M", lambda m: m.number(2))
pushes("\x8a", lambda m: m.integer(m.take(m.number(1))))
pushes("\x8b", lambda m: m.integer(m.take(m.number(4))))
pushes("G", lambda m: _FLOAT.unpack(m.take(8))[0])
pushes("X", lambda m: m.text(m.take(m.number(4))))
pushes("\x8c", lambda m: m.text(m.take(m.number(1))))
pushes("\x8d", lambda m: m.text(m.take(m.number(8))))
# Python 2's str: torch.load takes it for UTF-8 as well.
pushes("T", lambda m: m.text(m.take(m.number(4))))
pushes("U", lambda m: m.text(m.take(m.number(1))))
pushes("B", lambda m: m.take(m.number(4)))
pushes("C", lambda m: m.take(m.number(1)))
pushes("\x8e", lambda m: m.take(m.number(8)))
pushes("\x96", lambda m: m.take(m.number(8)))
pushes("]", lambda m: [])
pushes("}", lambda m: Pairs())
pushes(")", lambda m: ())
pushes("\x8f", lambda m: Items())


@op("I", "L")
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


@op("F")
def _float(m: Machine) -> None:
    try:
        m.stack.append(float(m.line()))
    except ValueError:
        m.no("a number that is none")


@op("S")
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


@op("V")
def _escaped(m: Machine) -> None:
    try:
        m.stack.append(m.line().decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        m.no("text with a broken escape")
