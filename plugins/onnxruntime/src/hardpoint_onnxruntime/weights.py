"""The tensors that a program holds."""

from __future__ import annotations

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node


def held_weights(program: ExportedProgram) -> dict[Node, torch.Tensor]:
    """The tensors that the program holds, by placeholder; none where they are not real."""
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    found = {}
    for node in program.graph.nodes:
        if node.op != "placeholder" or specs[node.name].kind is InputKind.USER_INPUT:
            continue
        name = str(specs[node.name].target)
        tensor = program.state_dict.get(name, program.constants.get(name))
        real = type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if isinstance(tensor, torch.Tensor) and real and tensor.device.type == "cpu":
            found[node] = tensor.detach()
    return found
