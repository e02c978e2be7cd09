"""Where the opcodes of pickles are registered: see Python's ``pickletools`` for what each means."""

from __future__ import annotations

from collections.abc import Callable

from hardpoint_checkpoint.machine import Machine

Step = Callable[[Machine], None]
OPCODES: dict[int, Step] = {}


def op(*codes: str) -> Callable[[Step], Step]:
    """What follows is what these opcodes do."""

    def register(step: Step) -> Step:
        for code in codes:
            OPCODES[ord(code)] = step
        return step

    return register


def pushes(code: str, value: Callable[[Machine], object]) -> None:
    """The opcode pushes this."""
    OPCODES[ord(code)] = lambda m: m.stack.append(value(m))
