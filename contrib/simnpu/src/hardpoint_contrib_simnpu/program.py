"""A program for the chip: what it takes, gives and holds, and its instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hardpoint_contrib_simnpu.chip import ALIGNMENT, SCRATCHPAD, in_bytes
from hardpoint_contrib_simnpu.isa import WIDTH, Instruction, Region, fault


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output: a host tensor. :param dtype: ``f16`` or ``f32``."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """What the compiler makes and the machine runs.

    :param precision: ``fp16`` or ``int8``, as the caller asked.
    :param weights: name -> where it lies in ``const``.
    :param const_bytes: DRAM for the weights. :param dram_bytes: DRAM for one call.
    """

    precision: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    weights: Mapping[str, Region]
    const_bytes: int
    dram_bytes: int
    instructions: tuple[Instruction, ...]

    @property
    def memory(self) -> int:
        """Bytes of DRAM that it needs."""
        return self.const_bytes + self.dram_bytes


def program_fault(program: Program) -> str | None:
    """Why ``program`` must not run, in words; ``None`` if every operand is where it may be.

    The host tensors are what the program declares, each output is written exactly once, and
    nothing reaches beyond a memory.
    """
    limits = {"const": program.const_bytes, "dram": program.dram_bytes, "pad": SCRATCHPAD}
    for name, region in program.weights.items():
        reason = _outside(region, limits)
        if region.space != "const" or not region.contiguous or region.address % ALIGNMENT:
            reason = f"it lies in {region.space} at {region.address}"
        if reason is not None:
            return f"weight {name!r}: {reason}"
    written: list[int] = []
    for number, instruction in enumerate(program.instructions):
        reason = fault(instruction) or _misses(instruction, program, limits)
        if reason is not None:
            return f"instruction {number} ({instruction.op}): {reason}"
        if instruction.op == "COPY_OUT":
            written.append(instruction.out.address)
    if sorted(written) != list(range(len(program.outputs))):
        return f"it writes outputs {written} of {len(program.outputs)}"
    return None


def _misses(i: Instruction, program: Program, limits: Mapping[str, int]) -> str | None:
    """Whether an operand is not there."""
    for region, ports in ((i.out, program.outputs), *((r, program.inputs) for r in i.ins)):
        if region.space != "host":
            reason = _outside(region, limits)
        else:
            reason = _no_port(region, ports)
        if reason is not None:
            return reason
    return None


def _outside(region: Region, limits: Mapping[str, int]) -> str | None:
    if region.end <= limits[region.space]:
        return None
    return (
        f"an operand ends at byte {region.end:,} of {region.space}, which has "
        f"{in_bytes(limits[region.space])}"
    )


def _no_port(region: Region, ports: Sequence[Port]) -> str | None:
    if region.address >= len(ports):
        return f"host tensor {region.address} of {len(ports)}"
    port = ports[region.address]
    if (port.dtype, port.shape) != (region.dtype, region.shape):
        return f"host tensor {region.address} is {port.dtype}{list(port.shape)}"
    return None


def disassemble(program: Program) -> str:
    """The program for people to read: a line for each instruction."""
    lines = [
        f"; simnpu/1, precision {program.precision}, {len(program.instructions)} instructions",
        f"; DRAM: {in_bytes(program.const_bytes)} of weights, {in_bytes(program.dram_bytes)} "
        "for a call",
    ]
    lines += [f"; input {i}: {p.dtype}{list(p.shape)}" for i, p in enumerate(program.inputs)]
    lines += [f"; output {i}: {p.dtype}{list(p.shape)}" for i, p in enumerate(program.outputs)]
    lines += [f"; weight {name!r}: {_shown(region)}" for name, region in program.weights.items()]
    for number, i in enumerate(program.instructions):
        operands = ", ".join(_shown(r) for r in i.ins)
        numbers = "".join(f", {n!r}" for n in i.numbers)
        lines.append(f"{number:05}  {i.op:<8} {_shown(i.out)} <- {operands}{numbers}")
    return "\n".join(lines) + "\n"


def _shown(region: Region) -> str:
    place = region.address if region.space == "host" else f"{region.address:#08x}"
    strides = "" if region.contiguous else f" strides {list(region.strides)}"
    return f"{region.space}[{place}] {region.dtype}{list(region.shape)}{strides}"


def port_bytes(port: Port) -> int:
    """Bytes of a host tensor."""
    count = WIDTH[port.dtype]
    for size in port.shape:
        count *= size
    return count
