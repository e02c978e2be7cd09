"""Backends that are right in everything but one operator, for the kit's operator checks."""

import os
import time

import torch

from hardpoint import BackendInfo, CompileError, Executable, Support, hookimpl
from hardpoint.planning import compute_nodes
from hardpoint_cpu import plugin as cpu
from hardpoint_cpu.backend import CpuBackend

OP = "aten.relu.default"
INFO = {
    "summary": "the cpu backend with one flaw",
    "precisions": ("fp32", "bf16"),
    "strided_inputs": True,
}


class Spoiled(Executable):
    """An executable, and what goes wrong around a call of it."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil

    def __call__(self, *inputs):
        return self.spoil(self.inner, inputs)

    def close(self):
        self.inner.close()


class Flawed(CpuBackend):
    """The cpu backend; `spoil` runs calls of segments that hold the operator OP."""

    operator = OP

    def compile(self, program, device, options):
        artifact = super().compile(program, device, options)
        if any(str(n.target) == self.operator for n in compute_nodes(program)):
            artifact.metadata["flawed"] = True
        return artifact

    def load(self, artifact, device):
        executable = super().load(artifact, device)
        return Spoiled(executable, self.spoil) if artifact.metadata.get("flawed") else executable

    def spoil(self, call, inputs):
        return call(*inputs)


class Provider:
    """A plugin around a backend class."""

    hardpoint_backend_probe = staticmethod(cpu.hardpoint_backend_probe)

    def __init__(self, backend):
        self.backend = backend

    @hookimpl
    def hardpoint_backend_info(self):
        return BackendInfo(requires_api=(1, 0), cpu_kernels=True, **INFO)

    @hookimpl
    def hardpoint_backend_open(self, config):
        return self.backend(config)


class WrongRelu(Flawed):
    """Lets a little of negative numbers through, as leaky_relu does."""

    def spoil(self, call, inputs):
        return tuple(torch.where(inputs[0] < 0, inputs[0] / 100, r) for r in call(*inputs))


class CoarseInBfloat16(Flawed):
    """Loses more in one dtype than rounding can explain."""

    def spoil(self, call, inputs):
        return tuple(r * 1.06 if r.dtype is torch.bfloat16 else r for r in call(*inputs))


class DropsNan(Flawed):
    """Where NaN should come out, a number does."""

    operator = "aten.igamma.default"

    def spoil(self, call, inputs):
        return tuple(r.nan_to_num(nan=0.0) if r.is_floating_point() else r for r in call(*inputs))


class WritesIntoInputs(Flawed):
    """In place, where the caller keeps the input."""

    def spoil(self, call, inputs):
        results = call(*inputs)
        inputs[0].clamp_(min=0)
        return results


class RaisesInCall(Flawed):
    """Finds out at the call that it cannot."""

    def spoil(self, call, inputs):
        raise NotImplementedError("relu of this size")


class Crashes(Flawed):
    """Takes the process with it."""

    def spoil(self, call, inputs):
        os.abort()


class Hangs(Flawed):
    """Never comes back."""

    def spoil(self, call, inputs):
        time.sleep(3600)


class Liar(Flawed):
    """Claims what its compiler refuses."""

    def compile(self, program, device, options):
        for node in compute_nodes(program):
            if str(node.target) == OP:
                raise CompileError("relu is not implemented in this version")
        return super().compile(program, device, options)


class ClaimsNothing(CpuBackend):
    """Honest, and of no use."""

    def support(self, program, device):
        return Support(frozenset(), {n.name: "it runs nothing" for n in compute_nodes(program)})


correct = Provider(Flawed)
wrong_relu = Provider(WrongRelu)
coarse_in_bfloat16 = Provider(CoarseInBfloat16)
drops_nan = Provider(DropsNan)
writes_into_inputs = Provider(WritesIntoInputs)
raises_in_call = Provider(RaisesInCall)
crashes = Provider(Crashes)
hangs = Provider(Hangs)
liar = Provider(Liar)
claims_nothing = Provider(ClaimsNothing)
