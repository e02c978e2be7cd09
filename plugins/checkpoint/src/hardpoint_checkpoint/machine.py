"""Reading a pickle: our own interpreter of its opcodes, which makes descriptions and nothing else.

It knows protocols 0 to 5, imports nothing, calls only what the allow-list of ``globals`` holds, and
takes no more memory and time than the length of the pickle and ``MAX_OPS`` allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from hardpoint.storage.refusal import show
from hardpoint_checkpoint.globals import ALLOWED, Function, call
from hardpoint_checkpoint.refuse import NEEDS_MORE
from hardpoint_checkpoint.standins import CutShort, Items, Pairs, Refused

# An opcode may make an object of 100 bytes: a gigabyte, some seconds.
MAX_OPS = 10_000_000
MAX_PICKLE = 256 << 20
# Bytes of a number. Random generators have states of 32.
_MAX_INT = 128
_MAX_LINE = 4096
_MAX_MARKS = 10_000


class Found(NamedTuple):
    """A global that a pickle names.

    :param at: byte of the pickle at which the opcode that asks for it is.
    :param length: bytes of that opcode, with the name where it stands there.
    """

    module: str
    name: str
    at: int
    length: int

    @property
    def allowed(self) -> bool:
        """Whether a checkpoint may name it."""
        return (self.module, self.name) in ALLOWED


def strict(found: Found) -> object:
    """What stands for a global.

    :raises Refused: it is not on the allow-list.
    """
    try:
        return ALLOWED[found.module, found.name]
    except KeyError:
        what = show(f"{found.module}.{found.name}")[1:-1]
        raise Refused(
            f"it asks for {what}, which is no part of what tensors and plain data need",
            found.at,
            NEEDS_MORE,
        ) from None


class Unknown:
    """What a global that is not allowed would give, where one only looks."""


class Machine:
    """Reads one pickle that begins at ``at`` of ``data``.

    :param load: what stands for a persistent id.
    :param find: what stands for a global; raises :class:`Refused`.
    :ivar at: where it stands; after :meth:`run`, the byte after the pickle.
    """

    def __init__(
        self,
        data: bytes,
        at: int = 0,
        *,
        load: Callable[[object], object],
        find: Callable[[Found], object] = strict,
    ) -> None:
        self.data = data
        self.at = self.op_at = at
        self.load = load
        self.find = find
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        # Items that calls may copy: each opcode could copy all that was made before.
        self._copies = 4 * len(data) + 1000

    def run(self, opcodes: Mapping[int, Callable[[Machine], None]]) -> object:
        """The object.

        :param opcodes: what each does: ``opcodes.OPCODES``.
        :raises Refused: it is broken, or asks for more than a checkpoint may.
        :raises CutShort: the data ends before it does.
        """
        data, end = self.data, len(self.data)
        try:
            for _ in range(MAX_OPS):
                at = self.op_at = self.at
                if at >= end:
                    raise CutShort("it ends before its last opcode", at)
                opcode = data[at]
                self.at = at + 1
                if opcode == _STOP:
                    if len(self.stack) != 1 or self.marks:
                        raise Refused("it ends with more or less than one object", at)
                    return self.stack[0]
                step = opcodes.get(opcode)
                if step is None:
                    raise Refused(f"byte {opcode:#04x} is no opcode that a checkpoint has", at)
                step(self)
        except IndexError:
            raise Refused("it takes something from an empty stack", self.op_at) from None
        except Refused as error:
            if error.at < 0:
                error.at = self.op_at
            raise
        raise Refused(f"it has more than {MAX_OPS} opcodes", self.at)

    def no(self, cause: str, remedy: str | None = None) -> NoReturn:
        """Refuse what this opcode asks for."""
        raise Refused(cause, self.op_at, remedy)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        at = self.at
        if count > len(self.data) - at:
            raise CutShort(f"{count} bytes are announced, and it ends before", self.op_at)
        self.at = at + count
        return self.data[at : at + count]

    def number(self, width: int) -> int:
        """The next unsigned number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little")

    def line(self) -> bytes:
        """Up to the next newline, which is left out."""
        at = self.at
        end = self.data.find(b"\n", at, at + _MAX_LINE)
        if end < 0:
            if len(self.data) - at < _MAX_LINE:
                raise CutShort("a line of text does not end", self.op_at)
            self.no(f"a line of text is longer than {_MAX_LINE} bytes")
        self.at = end + 1
        return self.data[at:end]

    def integer(self, raw: bytes) -> int:
        """A signed number, of bounded size: turning one into digits takes the square of that."""
        if len(raw) > _MAX_INT:
            self.no(f"a number of {len(raw)} bytes")
        return int.from_bytes(raw, "little", signed=True)

    def text(self, raw: bytes) -> str:
        """Characters."""
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self.no("text that is not UTF-8")

    def mark(self) -> None:
        """Begin a group of objects."""
        if len(self.marks) >= _MAX_MARKS:
            self.no(f"more than {_MAX_MARKS} groups are within each other")
        self.marks.append(self.stack)
        self.stack = []

    def group(self) -> list[object]:
        """End the group that was begun last."""
        if not self.marks:
            self.no("a group ends that was never begun")
        found, self.stack = self.stack, self.marks.pop()
        return found

    def put(self, index: int) -> None:
        """Remember the object on top."""
        # Numbers are given out one by one, so that none is larger than the count of opcodes.
        if index > MAX_OPS:
            self.no(f"it remembers an object under the number {index}")
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        """Push what was remembered."""
        if index not in self.memo:
            self.no(f"it recalls object {index}, which it never made")
        self.stack.append(self.memo[index])

    def name(self, module: str, name: str) -> object:
        """What stands for a global."""
        return self.find(Found(module, name, self.op_at, self.at - self.op_at))

    def apply(self, function: object, args: object) -> object:
        """What calling a global gives."""
        if isinstance(function, Unknown):
            return function
        if not isinstance(function, Function) or not isinstance(args, tuple):
            self.no("it calls something that is no function")
        self._copies -= sum(map(_length, args))
        if self._copies < 0:
            self.no("it copies the same things again and again")
        return call(function, args)

    def set_pairs(self, goal: object, flat: list[object]) -> None:
        """Fill a dict."""
        if isinstance(goal, Unknown):
            return
        if not isinstance(goal, Pairs) or len(flat) % 2:
            self.no("it fills something that is no dict, or by half a pair")
        goal.items.extend(zip(flat[::2], flat[1::2], strict=True))

    def extend(self, goal: object, values: list[object], kind: type[list[object] | Items]) -> None:
        """Fill a list or a set."""
        if isinstance(goal, Unknown):
            return
        if not isinstance(goal, kind):
            self.no("it fills something that is no list, or no set")
        (goal.items if isinstance(goal, Items) else goal).extend(values)


def _length(value: object) -> int:
    return (
        len(value)
        if isinstance(value, str | bytes | list | tuple)
        else (len(value.items) if isinstance(value, Pairs | Items) else 1)
    )


_STOP = ord(".")
