"""A real, small backend for the core's own tests: runs a segment's graph in eager PyTorch.

It keeps compiled programs in memory (its artifacts cannot leave the process), which is all that
tests of planning, compiling and running need. `claims` limits what it says it supports.
"""

from hardpoint import (
    Artifact,
    Backend,
    BackendInfo,
    Device,
    Executable,
    Probe,
    Support,
    hookimpl,
)
from hardpoint.planning import compute_nodes


class GraphExecutable(Executable):
    def __init__(self, program):
        from hardpoint.program.program import held_tensors

        held = held_tensors(program)
        user = set(program.graph_signature.user_inputs)
        names = [s.arg.name for s in program.graph_signature.input_specs]
        self.module = program.graph_module
        self.fixed = [held[n] for n in names if n not in user]
        assert [n in user for n in names] == sorted(n in user for n in names)

    def __call__(self, *inputs):
        return tuple(self.module.forward(*self.fixed, *inputs))


class EagerBackend(Backend):
    def __init__(self, name, claims, spoil):
        self.name, self.claims, self.spoil, self.programs = name, claims, spoil, []

    def devices(self):
        return [Device("0", f"eager {self.name}")]

    def support(self, program, device):
        names = {n.name: n for n in compute_nodes(program)}
        good = frozenset(k for k, n in names.items() if self.claims(n))
        return Support(
            good, {k: f"{n.target} is not claimed" for k, n in names.items() if k not in good}
        )

    def compile(self, program, device, options):
        self.programs.append(program)
        return Artifact("eager-test/1", metadata={"index": len(self.programs) - 1})

    def load(self, artifact, device):
        return self.spoil(GraphExecutable(self.programs[artifact.metadata["index"]]))


class Provider:
    """A plugin as an object, for `registry.add`."""

    def __init__(self, name="eager", claims=lambda node: True, spoil=lambda executable: executable, strided=True, precisions=("fp32",)):  # fmt: skip
        self.backend = EagerBackend(name, claims, spoil)
        self.strided, self.precisions = strided, precisions

    @hookimpl
    def hardpoint_backend_info(self):
        return BackendInfo(requires_api=(1, 0), summary="eager", precisions=self.precisions, strided_inputs=self.strided)  # fmt: skip

    @hookimpl
    def hardpoint_backend_probe(self, request):
        return Probe.ready(*self.backend.devices())

    @hookimpl
    def hardpoint_backend_open(self, config):
        return self.backend
