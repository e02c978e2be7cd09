"""Which numbers the activations reach: the fp16 program is run on the caller's examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.export import ExportedProgram

from hardpoint_contrib_simnpu.lower import Lowered, lower
from hardpoint_contrib_simnpu.machine import run
from hardpoint_contrib_simnpu.memory import Arena
from hardpoint_contrib_simnpu.origin import compile_error
from hardpoint_contrib_simnpu.quantize import scale_of


def int8_scales(program: ExportedProgram, examples: Sequence[torch.Tensor]) -> dict[str, float]:
    """The scale of the activation of each node that computes in int8.

    :param examples: one tensor for each input of the segment.
    :raises CompileError: there are none, they do not fit, or fp16 overflows on them.
    """
    wanted = lower(program).quantizable
    if not wanted:
        return {}
    nodes = list(dict.fromkeys(wanted.values()))
    watched = lower(program, observed=nodes)
    ports = watched.program.inputs
    shapes = [(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for t in examples]
    if shapes != [(p.shape, {"f32": "float32", "f16": "float16"}[p.dtype]) for p in ports]:
        raise compile_error(
            "int8 cannot be calibrated",
            cause=f"the segment has {len(ports)} inputs, and the example inputs are "
            f"{', '.join(f'{d}{list(s)}' for s, d in shapes) or 'none'}",
            remedy="capture the model with example inputs, or ask for precision 'fp16'",
        )
    arrays = [t.numpy(force=True) for t in examples]
    outputs, _ = run(watched.program, fill(watched), arrays)
    greatest = {
        node: float(np.abs(values).max())
        for node, values in zip(nodes, outputs[-len(nodes) :], strict=True)
    }
    for node, value in greatest.items():
        if not np.isfinite(value):
            raise compile_error(
                "int8 cannot be calibrated",
                cause=f"{node.name!r} is infinite or NaN on the example inputs, in fp16",
                remedy="give examples that stay within fp16, up to 65504",
            )
    return {name: scale_of(greatest[node]) for name, node in wanted.items()}


def fill(lowered: Lowered) -> Arena:
    """The weights in memory."""
    arena = Arena(lowered.program.const_bytes)
    for name, region in lowered.program.weights.items():
        arena.at(region)[...] = lowered.weights[name]
    return arena
