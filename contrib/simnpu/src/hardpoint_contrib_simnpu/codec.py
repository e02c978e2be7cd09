"""The file ``program.json``: a program as bounded, strict JSON.

One object::

    {"format": "simnpu/1", "chip": "simnpu-a1", "precision": "fp16",
     "inputs": [["f32", [2, 8]]], "outputs": [["f32", [2, 4]]],
     "weights": {"w0": ["const", 0, "f16", [4, 8]]}, "const_bytes": 64, "dram_bytes": 128,
     "instructions": [["LOAD", ["pad", 0, "f16", [2, 8]], [["dram", 0, "f16", [2, 8]]], []]]}

A region is ``[space, address, dtype, shape]``, then its strides where they are not those of a
contiguous tensor. Nothing is left out, and nothing may be there besides.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from hardpoint_contrib_simnpu.chip import CHIP, MIB
from hardpoint_contrib_simnpu.isa import FORMAT, SPACES, WIDTH, Instruction, Region, dense
from hardpoint_contrib_simnpu.origin import artifact_error
from hardpoint_contrib_simnpu.program import Port, Program, program_fault

FILE, LISTING = "program.json", "program.asm"
MAX_BYTES = 128 * MIB
MAX_INSTRUCTIONS = 2**18
_MAX_RANK = 16
_MAX_SIZE = 2**40
_KEYS = frozenset({
    "format", "chip", "precision", "inputs", "outputs", "weights", "const_bytes", "dram_bytes",
    "instructions",
})  # fmt: skip


def encode(program: Program) -> bytes:
    """``program`` as a file."""
    return json.dumps(
        {
            "format": FORMAT,
            "chip": CHIP,
            "precision": program.precision,
            "inputs": [[p.dtype, p.shape] for p in program.inputs],
            "outputs": [[p.dtype, p.shape] for p in program.outputs],
            "weights": {name: _region(r) for name, r in program.weights.items()},
            "const_bytes": program.const_bytes,
            "dram_bytes": program.dram_bytes,
            "instructions": [
                [i.op, _region(i.out), [_region(r) for r in i.ins], i.numbers]
                for i in program.instructions
            ],
        },
        separators=(",", ":"),
        allow_nan=False,
    ).encode()


def _region(region: Region) -> list[object]:
    found: list[object] = [region.space, region.address, region.dtype, region.shape]
    return found if region.contiguous else [*found, region.strides]


class _DamagedError(Exception):
    """The file does not hold what it should; the text says what."""


def decode(data: bytes | memoryview) -> Program:
    """Read a file that :func:`encode` made, trusting nothing in it.

    :raises ArtifactError: damaged, hostile, for another chip, or of another version.
    """
    try:
        if len(data) > MAX_BYTES:
            raise _DamagedError(f"it has {len(data):,} bytes, the limit is {MAX_BYTES:,}")
        parsed = json.loads(
            bytes(data).decode(), object_pairs_hook=_unique, parse_constant=_no_constant
        )
        if not isinstance(parsed, dict):
            raise _DamagedError("it is no JSON object")
        for key, own in (("format", FORMAT), ("chip", CHIP)):
            if parsed.get(key) != own:
                raise artifact_error(
                    f"{FILE} is for another {'version' if key == 'format' else 'chip'}",
                    cause=f"its {key} is {_short(parsed.get(key))}, this plugin reads {own!r}",
                    remedy="compile the segment again with this version, for this chip",
                )
        program = _program(parsed)
        reason = program_fault(program)
        if reason is not None:
            raise _DamagedError(reason)
    except (_DamagedError, ValueError, RecursionError) as error:
        raise artifact_error(
            f"{FILE} is damaged", cause=str(error)[:400], remedy="compile the segment again"
        ) from error
    return program


def _program(data: dict[str, Any]) -> Program:
    if data.keys() != _KEYS:
        raise _DamagedError(f"it has the keys {_short(sorted(data))}")
    if data["precision"] not in ("fp16", "int8"):
        raise _DamagedError(f"its precision is {_short(data['precision'])}")
    weights = data["weights"]
    if not isinstance(weights, dict):
        raise _DamagedError("its weights are no object")
    instructions = _items(data["instructions"], "instructions", MAX_INSTRUCTIONS)
    return Program(
        precision=data["precision"],
        inputs=tuple(_read_port(p) for p in _items(data["inputs"], "inputs")),
        outputs=tuple(_read_port(p) for p in _items(data["outputs"], "outputs")),
        weights={name: _read_region(r) for name, r in weights.items()},
        const_bytes=_whole(data["const_bytes"]),
        dram_bytes=_whole(data["dram_bytes"]),
        instructions=tuple(_read_instruction(i) for i in instructions),
    )


def _read_port(value: object) -> Port:
    dtype, shape = _items(value, "parts of a port", 2, 2)
    if dtype not in ("f16", "f32"):
        raise _DamagedError(f"a host tensor of dtype {_short(dtype)}")
    return Port(dtype, _sizes(shape, least=1))


def _read_instruction(value: object) -> Instruction:
    op, out, ins, numbers = _items(value, "parts of an instruction", 4, 4)
    if not isinstance(op, str):
        raise _DamagedError(f"an opcode is {_short(op)}")
    given = _items(numbers, "numbers", 16)
    if not all(type(n) in (int, float) for n in given):
        raise _DamagedError(f"an instruction's numbers are {_short(given)}")
    return Instruction(
        op, _read_region(out), tuple(map(_read_region, _items(ins, "operands", 8))), tuple(given)
    )


def _read_region(value: object) -> Region:
    parts = _items(value, "parts of a region", 5, 4)
    space, address, dtype, shape = parts[:4]
    if space not in SPACES:
        raise _DamagedError(f"there is no memory {_short(space)}")
    if not isinstance(dtype, str) or dtype not in WIDTH:
        raise _DamagedError(f"there is no dtype {_short(dtype)}")
    sizes = _sizes(shape, least=1)
    if len(parts) == 4:
        return dense(space, _whole(address), dtype, sizes)
    strides = _sizes(parts[4], least=0)
    if len(strides) != len(sizes):
        raise _DamagedError(f"{len(strides)} strides for {len(sizes)} dimensions")
    return Region(space, _whole(address), dtype, sizes, strides)


def _sizes(value: object, least: int) -> tuple[int, ...]:
    return tuple(_whole(size, least) for size in _items(value, "dimensions", _MAX_RANK))


def _items(value: object, what: str, most: int = MAX_INSTRUCTIONS, least: int = 0) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        found = f"{len(value):,}" if isinstance(value, list) else type(value).__name__
        raise _DamagedError(f"{least} to {most:,} {what} may be there, found {found}")
    return value


def _whole(value: object, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= _MAX_SIZE:
        raise _DamagedError(f"{_short(value)} is no size or address")
    return value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: of two equal ones, readers disagree which counts."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DamagedError(f"the key {_short(key)} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> object:
    raise _DamagedError(f"{name} is no number of JSON")
