"""The cpu backend with one flaw: what the mutants of backends have in common."""

from dataclasses import replace

import hardpoint_cpu.plugin as cpu
from hardpoint import Backend, Executable, hookimpl


class Wrapped(Backend):
    """The cpu backend; a mutant overrides what it breaks, or gives `executable` a flawed class."""

    executable = None

    def __init__(self):
        self.cpu = cpu.hardpoint_backend_open({})

    def devices(self):
        return self.cpu.devices()

    def support(self, program, device):
        return self.cpu.support(program, device)

    def compile(self, program, device, options):
        return self.cpu.compile(program, device, options)

    def load(self, artifact, device):
        made = self.cpu.load(artifact, device)
        return made if self.executable is None else self.executable(made)


class Flawed(Executable):
    """Calls the correct executable; a mutant overrides `run` or `call`."""

    def __init__(self, correct):
        self.correct = correct

    def __call__(self, *inputs):
        return self.spoil(inputs, self.correct(*inputs))

    def spoil(self, inputs, results):
        return results

    def close(self):
        self.correct.close()


class Provider:
    """The hooks of a mutant.

    :param info: fields of `BackendInfo` that it lies about.
    """

    def __init__(self, backend, **info):
        self.backend, self.fields = backend, info

    @hookimpl
    def hardpoint_backend_info(self):
        return replace(cpu.hardpoint_backend_info(), **self.fields)

    @hookimpl
    def hardpoint_backend_probe(self, request):
        return cpu.hardpoint_backend_probe(request)

    @hookimpl
    def hardpoint_backend_open(self, config):
        return self.backend()


def flawed(executable, **info):
    """A provider whose executables have the flaw."""
    return Provider(type("Mutant", (Wrapped,), {"executable": executable}), **info)
