"""Which nodes the chip can run: each is lowered on trial, so that support and compiler agree."""

from __future__ import annotations

import math

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from hardpoint import Support
from hardpoint.planning import compute_nodes
from hardpoint_contrib_simnpu.chip import MAX_RANK, in_bytes
from hardpoint_contrib_simnpu.emitter import Emitter
from hardpoint_contrib_simnpu.lowering import Lowering
from hardpoint_contrib_simnpu.origin import RefusedError
from hardpoint_contrib_simnpu.rules import RULES, lower_node

# A node that needs more is cut into crumbs, and a program would soon be full.
_MOST_INSTRUCTIONS = 2**14


def support(program: ExportedProgram, dram: int) -> Support:
    """Every node that alone fits a device with ``dram`` bytes, or the reason why it does not."""
    names, reasons = [], {}
    for node in compute_nodes(program):
        names.append(node.name)
        reason = refusal(node, dram)
        if reason is not None:
            reasons[node.name] = reason
    return Support(frozenset(names) - reasons.keys(), reasons)


def refusal(node: Node, dram: int) -> str | None:
    """Why ``node`` cannot run, in words; ``None`` where it can."""
    if node.target not in RULES:
        return f"{node.target} is not among the chip's operators"
    operands = [n for n in node.all_input_nodes if isinstance(n.meta["val"], torch.Tensor)]
    for tensor in [node, *operands]:
        reason = _bad_tensor(tensor.meta["val"])
        if reason is not None:
            return reason
    needed = sum(2 * math.prod(n.meta["val"].shape) for n in [node, *operands])
    if needed > dram:
        return (
            f"its tensors take {in_bytes(needed)} in fp16, the device has {in_bytes(dram)} of DRAM"
        )
    low = Lowering(Emitter(_MOST_INSTRUCTIONS))
    for operand in operands:
        low.values[operand] = low.emitter.new(tuple(operand.meta["val"].shape))
    try:
        lower_node(low, node)
    except RefusedError as error:
        return str(error)
    return None


def _bad_tensor(tensor: object) -> str | None:
    if not isinstance(tensor, torch.Tensor):
        return "its result is not one tensor"
    if tensor.dtype not in (torch.float32, torch.float16):
        dtype = str(tensor.dtype).removeprefix("torch.")
        return f"a tensor of it is {dtype}; the chip computes what is float32 or float16"
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        return f"a tensor of it is {tensor.layout} on {tensor.device}"
    if any(not isinstance(size, int) for size in tensor.shape):
        return f"a size of it varies ({list(tensor.shape)}); the chip's programs are static"
    if 0 in tensor.shape:
        return "a tensor of it has no elements"
    if len(tensor.shape) > MAX_RANK:
        return (
            f"a tensor of it has {len(tensor.shape)} dimensions, the copy engine walks {MAX_RANK}"
        )
    return None
