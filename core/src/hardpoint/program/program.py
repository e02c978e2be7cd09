"""A captured program: the graph, its calling convention, and real example inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from hardpoint.program.signature import Signature

MUTATIONS = (
    OutputKind.BUFFER_MUTATION,
    OutputKind.PARAMETER_MUTATION,
    OutputKind.USER_INPUT_MUTATION,
)


@dataclass(frozen=True, eq=False)
class Program:
    """What :func:`hardpoint.capture` gives.

    :param exported: functional (mutations are outputs), not decomposed; user inputs and outputs
        are flat tensors.
    :param signature: how it is called with the model's own arguments.
    :param example_inputs: flat tensors that fit the signature; may be empty for a loaded file.
    :param name: for people.
    :param check_inputs: other flat tensors that fit it, to verify on; nothing is compiled or
        calibrated with them. Empty: it is verified on the examples alone.
    """

    exported: ExportedProgram
    signature: Signature
    example_inputs: tuple[torch.Tensor, ...]
    name: str
    check_inputs: tuple[torch.Tensor, ...] = ()

    def __str__(self) -> str:
        nodes = sum(n.op == "call_function" for n in self.exported.graph.nodes)
        results = ", ".join(map(str, self.signature.results))
        return (
            f"program {self.name}: {nodes} operations, "
            f"{sum(t.numel() for t in self.exported.state_dict.values()):,} weights\n"
            f"  takes  {self.signature.describe_arguments()}\n  gives  {results}"
        )

    def run(
        self,
        inputs: Sequence[torch.Tensor],
        state: Mapping[str, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Every value of the graph in eager PyTorch, by node name: the reference for verification.

        Changes nothing: mutations are values here. Tensors that nothing outlives are kept too, so
        this takes the memory of all activations.

        :param state: buffer or parameter -> its value, where not the captured one.
        """
        recorder = _Recorder(self.exported.graph_module)
        with torch.no_grad():
            recorder.run(*lifted_inputs(self.exported, inputs, state))
        return recorder.values


def lifted_inputs(
    exported: ExportedProgram,
    inputs: Sequence[torch.Tensor],
    state: Mapping[str, torch.Tensor] | None = None,
) -> list[torch.Tensor]:
    """What the placeholders of ``exported`` hold for these user inputs, in order.

    :param state: buffer or parameter -> its value, where not the captured one.
    """
    user, given = iter(inputs), state or {}
    held = held_tensors(exported)
    return [
        next(user)
        if spec.kind is InputKind.USER_INPUT
        else given.get(str(spec.target), held[spec.arg.name])
        for spec in exported.graph_signature.input_specs
    ]


def held_tensors(exported: ExportedProgram) -> Mapping[str, torch.Tensor]:
    """Placeholder name -> parameter, buffer or constant tensor that the program holds."""
    held = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        target = str(spec.target)
        source = exported.state_dict if target in exported.state_dict else exported.constants
        held[spec.arg.name] = source[target]
    return held


class _Recorder(torch.fx.Interpreter):
    """An interpreter that keeps every tensor by the name of its node."""

    def __init__(self, module: torch.fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[str, torch.Tensor] = {}

    def run_node(self, n: torch.fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.values[n.name] = value
        return value
