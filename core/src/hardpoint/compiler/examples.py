"""Example inputs for a program that came without any."""

from __future__ import annotations

import torch

from hardpoint.errors import CompileError
from hardpoint.program import dims
from hardpoint.program.signature import Signature

# A dynamic size is given this value where its range allows: above 1, so that no size is mistaken
# for a broadcast, and different for each symbol.
FIRST_SIZE = 3


def make_examples(signature: Signature) -> tuple[torch.Tensor, ...]:
    """Tensors that fit ``signature``: normal floats, zero integers (a valid index), true booleans.

    :raises CompileError: a dtype that cannot be filled.
    """
    sizes = {}
    for i, (name, (least, greatest)) in enumerate(signature.symbols.items()):
        size = max(least, FIRST_SIZE + 2 * i)
        sizes[name] = size if greatest is None else min(size, greatest)
    generator = torch.Generator().manual_seed(0)
    made = []
    for spec in signature.inputs:
        shape = [dims.evaluate(d, sizes) for d in spec.shape]
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            made.append(torch.randn(shape, generator=generator).to(dtype).to(spec.device))
        elif dtype is torch.bool:
            made.append(torch.ones(shape, dtype=dtype, device=spec.device))
        elif not dtype.is_complex:
            made.append(torch.zeros(shape, dtype=dtype, device=spec.device))
        else:
            raise CompileError(
                f"no example can be made for input {spec}", remedy="capture with example inputs"
            )
    return tuple(made)
