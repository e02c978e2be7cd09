"""How long the chip takes, in cycles: a simple model, and a repeatable one."""

from __future__ import annotations

import math

from hardpoint_contrib_simnpu.chip import DMA_BYTES, ISSUE, MACS, VECTOR_LANES
from hardpoint_contrib_simnpu.isa import Instruction

_COPIES = frozenset({"COPY_IN", "COPY_OUT", "LOAD", "STORE"})
# Passes over the data that the vector unit needs.
_PASSES = {"GELU": 4, "GELUT": 4, "SOFTMAX": 4}


def cycles(instruction: Instruction) -> int:
    """Cycles of one instruction, from its shapes alone."""
    out, ins = instruction.out, instruction.ins
    if instruction.op in _COPIES:
        return ISSUE + -(-max(out.nbytes, ins[0].nbytes) // DMA_BYTES)
    if instruction.op.startswith(("MATMUL", "CONV2D")):
        products = out.elements * math.prod(ins[1].shape[1:])
        return ISSUE + -(-products // MACS[ins[1].dtype])
    passes = _PASSES.get(instruction.op, 1)
    if instruction.op == "MAXPOOL":
        passes = int(instruction.numbers[0] * instruction.numbers[1])
    return ISSUE + passes * -(-out.elements // VECTOR_LANES)
