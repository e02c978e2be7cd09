"""Backends with one flaw each in their artifacts, and in a long-lived process."""

import os
import pickle
import queue
import threading
import uuid
from dataclasses import replace

import torch
from mutants_backend import Flawed, Provider, Wrapped, flawed

from hardpoint import CompileError
from hardpoint_cpu.formats import EAGER

KEPT = {}


class KeepsItInTheProcess(Wrapped):
    """Its artifacts are tickets for what it holds in memory."""

    def compile(self, program, device, options):
        made = super().compile(program, device, options)
        ticket = str(len(KEPT))
        KEPT[ticket] = made
        return replace(made, files={"ticket": ticket.encode()}, weights={})

    def load(self, artifact, device):
        return super().load(KEPT[bytes(artifact.files["ticket"]).decode()], device)


class Pickles(Wrapped):
    def compile(self, program, device, options):
        made = super().compile(program, device, options)
        return replace(made, files={**made.files, "weights.bin": pickle.dumps({"a": 1})})


class NamesByChance(Wrapped):
    def compile(self, program, device, options):
        made = super().compile(program, device, options)
        return replace(made, files={**made.files, f"log-{uuid.uuid4()}": b"compiled"})


class EmptiesArtifacts(Wrapped):
    """Lets go of the artifact's files once it has read them."""

    def load(self, artifact, device):
        made = super().load(artifact, device)
        artifact.files.clear()
        return made


class TakesAnyFormat(Wrapped):
    def load(self, artifact, device):
        return super().load(replace(artifact, format=EAGER), device)


class TakesAnyDevice(Wrapped):
    def load(self, artifact, device):
        return super().load(artifact, self.devices()[0])


class RaisesAnything(Wrapped):
    """Says no, in words that no host expects."""

    def load(self, artifact, device):
        if artifact.format != EAGER:
            raise KeyError(artifact.format)
        return super().load(artifact, device)


class IgnoresOptions(Wrapped):
    def compile(self, program, device, options):
        known = {k: v for k, v in options.backend.items() if k in ("mode", "freezing")}
        return super().compile(program, device, replace(options, backend=known))


class ComputesInAnother(Wrapped):
    """Asked for fp16, it computes in fp32, and says nothing."""

    def compile(self, program, device, options):
        return super().compile(program, device, replace(options, precision="fp32"))


class CrashesOnDamage(Wrapped):
    def load(self, artifact, device):
        try:
            return super().load(artifact, device)
        except Exception:
            os.abort()


class TrustsFiles(Wrapped):
    """Indexes what it reads without a look."""

    def load(self, artifact, device):
        if not bytes(artifact.files.get("graph.json", b"}")).endswith(b"}"):
            raise IndexError("list index out of range")
        return super().load(artifact, device)


class Leaks(Flawed):
    """A hundred kilobytes a call."""

    def spoil(self, inputs, results):
        self.__dict__.setdefault("kept", []).append(torch.ones(25_000))
        return results


class LeavesFilesOpen(Wrapped):
    def load(self, artifact, device):
        os.open(os.devnull, os.O_RDONLY)
        return super().load(artifact, device)


class LeavesThreads(Wrapped):
    def load(self, artifact, device):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().load(artifact, device)


class ClosesOnce(Flawed):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("handle 0x0 is not valid")
        self.closed = True


class FreesMemoryInUse(Flawed):
    """After close() a call reads what is there by then."""

    closed = False

    def close(self):
        self.closed = True

    def spoil(self, inputs, results):
        return tuple(r + 1 for r in results) if self.closed else results


class CrashesInAFork(Flawed):
    def __init__(self, correct):
        super().__init__(correct)
        self.home = os.getpid()

    def spoil(self, inputs, results):
        if os.getpid() != self.home:
            os.abort()
        return results


class HangsInAFork(Flawed):
    """A thread of its own does the work; a fork does not take it along."""

    def __init__(self, correct):
        super().__init__(correct)
        self.todo, self.done = queue.Queue(), queue.Queue()
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            self.done.put(self.correct(*self.todo.get()))

    def __call__(self, *inputs):
        self.todo.put(inputs)
        return self.done.get()


class NeedsToBeAskedFirst(Wrapped):
    """Compiles only where support() has run before."""

    asked = False

    def support(self, program, device):
        type(self).asked = True
        return super().support(program, device)

    def compile(self, program, device, options):
        if not self.asked:
            raise CompileError("no session is open")
        return super().compile(program, device, options)


keeps_it_in_the_process = Provider(KeepsItInTheProcess)
pickles = Provider(Pickles)
names_by_chance = Provider(NamesByChance)
empties_artifacts = Provider(EmptiesArtifacts)
takes_any_format = Provider(TakesAnyFormat)
takes_any_device = Provider(TakesAnyDevice)
raises_anything = Provider(RaisesAnything)
ignores_options = Provider(IgnoresOptions)
computes_in_another = Provider(ComputesInAnother)
crashes_on_damage = Provider(CrashesOnDamage)
trusts_files = Provider(TrustsFiles)
leaks = flawed(Leaks)
leaves_files_open = Provider(LeavesFilesOpen)
leaves_threads = Provider(LeavesThreads)
closes_once = flawed(ClosesOnce)
frees_memory_in_use = flawed(FreesMemoryInUse)
crashes_in_a_fork = flawed(CrashesInAFork)
hangs_in_a_fork = flawed(HangsInAFork)
needs_to_be_asked_first = Provider(NeedsToBeAskedFirst)
