"""The machine: it runs a program, instruction by instruction, on memories of its own.

No number of PyTorch's is touched: what comes in is copied into the device's memory, what goes out
is copied into fresh arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from hardpoint_contrib_simnpu.chip import SCRATCHPAD
from hardpoint_contrib_simnpu.cost import cycles
from hardpoint_contrib_simnpu.isa import Region
from hardpoint_contrib_simnpu.kernels import KERNELS
from hardpoint_contrib_simnpu.memory import Arena, Array
from hardpoint_contrib_simnpu.program import Program

HOST_DTYPES = {"f32": np.dtype(np.float32), "f16": np.dtype(np.float16)}


@dataclass(frozen=True, slots=True)
class Counters:
    """What was done so far.

    :param calls: runs of the program. :param instructions: executed. :param cycles: of the clock.
    :param bytes_in: of host tensors copied to the device; :param bytes_out: back to the host.
    :param bytes_loaded: DRAM to scratchpad; :param bytes_stored: scratchpad to DRAM.
    :param peak_scratchpad: bytes of scratchpad in use at most.
    """

    calls: int = 0
    instructions: int = 0
    cycles: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    bytes_loaded: int = 0
    bytes_stored: int = 0
    peak_scratchpad: int = 0

    def plus(self, other: Counters) -> Counters:
        """Both together."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        sums["peak_scratchpad"] = max(self.peak_scratchpad, other.peak_scratchpad)
        return Counters(**sums)


# The counter that a copy instruction adds to; the bytes are those of the host tensor, or of the
# tile in the scratchpad.
_COUNTED = {
    "COPY_IN": "bytes_in",
    "COPY_OUT": "bytes_out",
    "LOAD": "bytes_loaded",
    "STORE": "bytes_stored",
}

_FROM_OPERAND = frozenset({"COPY_IN", "STORE"})


def run(program: Program, const: Arena, inputs: Sequence[Array]) -> tuple[list[Array], Counters]:
    """One call, on memory of its own; ``const`` holds the weights and is only read.

    :param inputs: arrays of the shapes and dtypes that the program declares.
    :returns: fresh arrays, and what was counted.
    """
    memory = {"const": const, "dram": Arena(program.dram_bytes), "pad": Arena(SCRATCHPAD)}
    outputs = [np.empty(p.shape, HOST_DTYPES[p.dtype]) for p in program.outputs]
    counted = dict.fromkeys(_COUNTED.values(), 0)
    spent = peak = 0

    def array(region: Region, host: Sequence[Array]) -> Array:
        if region.space == "host":
            return host[region.address]
        return memory[region.space].at(region)

    # Overflow, NaN and division by zero do what the chip does, without a word.
    with np.errstate(all="ignore"):
        for instruction in program.instructions:
            ins = [array(region, inputs) for region in instruction.ins]
            out = array(instruction.out, outputs)
            kernel = KERNELS.get(instruction.op)
            if kernel is None:
                out[...] = ins[0]
                side = instruction.ins[0] if instruction.op in _FROM_OPERAND else instruction.out
                counted[_COUNTED[instruction.op]] += side.nbytes
            else:
                out[...] = kernel(ins, instruction.numbers)
            spent += cycles(instruction)
            for region in (instruction.out, *instruction.ins):
                if region.space == "pad":
                    peak = max(peak, region.end)
    return outputs, Counters(1, len(program.instructions), spent, **counted, peak_scratchpad=peak)
