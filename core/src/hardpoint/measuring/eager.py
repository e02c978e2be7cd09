"""The baseline: the captured program, run by PyTorch itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.export.graph_signature import OutputKind

from hardpoint.program.program import Program, lifted_inputs


class Eager:
    """Callable on flat inputs; gives the flat results. Computes in the program's own dtypes.

    New values of state and inputs are computed and dropped: each call starts from the same state.
    """

    def __init__(self, program: Program) -> None:
        self._exported = program.exported
        self._forward = program.exported.graph_module.forward
        kinds = [s.kind for s in program.exported.graph_signature.output_specs]
        self._results = [i for i, kind in enumerate(kinds) if kind is OutputKind.USER_OUTPUT]

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run on flat inputs."""
        with torch.no_grad():
            values = self._forward(*lifted_inputs(self._exported, inputs))
        return [values[i] for i in self._results]
