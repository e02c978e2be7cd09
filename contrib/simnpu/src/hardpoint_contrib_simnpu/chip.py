"""The chip that is simulated: its sizes, its speed, and what it says of itself.

All figures are made up, and of the size that small NPUs have.
"""

from __future__ import annotations

from hardpoint import Device

CHIP = "simnpu-a1"
KIB, MIB = 2**10, 2**20
SCRATCHPAD = 4 * MIB  # bytes; every operand and result of an instruction lies here
ALIGNMENT = 64  # bytes; where a tensor may begin, in DRAM and scratchpad
MAX_RANK = 8  # dimensions that the copy engine can walk

# Speed, in one clock.
DMA_BYTES = 64  # bytes that a copy moves in a cycle
VECTOR_LANES = 64  # elements that the vector unit handles in a cycle
MACS = {"f16": 1024, "i8": 2048}  # products that the matrix unit adds up in a cycle
ISSUE = 16  # cycles to start any instruction

# 127 * 127 for each product; beyond this many the int32 accumulator could overflow.
MAX_PRODUCTS = (2**31 - 1) // (127 * 127)


def device(number: int, dram: int) -> Device:
    """Device ``number`` of this machine, with ``dram`` bytes of memory."""
    return Device(
        id=str(number),
        name=f"Simulated NPU A1 #{number}",
        torch_device="cpu",  # its host tensors; what it computes on is its own memory
        memory=dram,
        properties={
            "chip": CHIP,
            "scratchpad_bytes": SCRATCHPAD,
            "arithmetic": "fp16 with fp32 sums; int8 with int32 sums",
            "fp16_overflow": "infinity, as IEEE 754 says",
            "int8_overflow": "clamps to 127 scales; NaN becomes 0",
        },
    )


def in_bytes(count: int) -> str:
    """``4 MiB (4,194,304 bytes)`` and the like, for messages with figures."""
    unit, name = (MIB, "MiB") if count >= MIB else (KIB, "KiB")
    if count < KIB:
        return f"{count} bytes"
    rounded = f"{count / unit:.2f}".rstrip("0").rstrip(".")
    return f"{rounded} {name} ({count:,} bytes)"


def aligned(count: int) -> int:
    """``count`` bytes, rounded up to where the next tensor may begin."""
    return -(-count // ALIGNMENT) * ALIGNMENT
