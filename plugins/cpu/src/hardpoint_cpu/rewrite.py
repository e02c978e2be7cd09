"""From the precision that was asked for to the passes that rewrite a segment for it."""

from __future__ import annotations

from hardpoint import CompileOptions
from hardpoint_cpu.options import Options
from hardpoint_cpu.origin import compile_error
from hardpoint_cpu.precision import to_bfloat16
from hardpoint_cpu.segment import Segment


def in_precision(segment: Segment, asked: CompileOptions, options: Options) -> Segment:
    """``segment``, rewritten; its ``executed`` says what it then computes in.

    :raises CompileError: a precision that this backend does not have, or why it cannot be had.
    """
    if asked.precision == "fp32":
        return segment
    if asked.precision == "bf16":
        return to_bfloat16(segment)
    if asked.precision in ("int8w", "int4w"):
        from hardpoint_cpu.weight_only import to_weight_only

        return to_bfloat16(to_weight_only(segment, asked.precision, options.group_size))
    if asked.precision == "int8":
        from hardpoint_cpu.int8 import to_int8

        return to_int8(segment, asked.example_inputs, options.activation_scales)
    raise compile_error(
        f"the cpu backend does not compute in {asked.precision}",
        remedy="ask for precision 'fp32', 'bf16', 'int8', 'int8w' or 'int4w', or for another "
        "backend",
    )
