"""Backends with one flaw each in how their executables are called."""

import time

import torch
from mutants_backend import Flawed, flawed


class FreezesRows(Flawed):
    """Was compiled for three rows, whatever comes."""

    def spoil(self, inputs, results):
        return tuple(r[:3] for r in results)


class IgnoresStrides(Flawed):
    """Reads memory from front to back."""

    def __call__(self, *inputs):
        flat = [
            t.as_strided(t.shape, torch.empty(t.shape).stride(), t.storage_offset()) for t in inputs
        ]
        return self.correct(*flat)


class FlattensEmpty(Flawed):
    def spoil(self, inputs, results):
        return tuple(r if r.numel() else r.flatten() for r in results)


class HasNoScalars(Flawed):
    def spoil(self, inputs, results):
        return tuple(r if r.dim() else r[None] for r in results)


class CountsIn32BitFloats(Flawed):
    """Forgets what lies past the 2^22nd element."""

    def spoil(self, inputs, results):
        for r in results:
            r.view(-1)[2**22 :] = 0
        return results


class DropsNaN(Flawed):
    def spoil(self, inputs, results):
        return tuple(r.nan_to_num(0.0, torch.inf, -torch.inf) for r in results)


class Clamps(Flawed):
    """Infinity becomes the largest number."""

    def spoil(self, inputs, results):
        return tuple(r.nan_to_num(torch.nan) for r in results)


class IntegersAsFloats(Flawed):
    def __call__(self, *inputs):
        rounded = [t.float().to(t.dtype) for t in inputs]
        return self.correct(*rounded)


class BooleansAsBytes(Flawed):
    def spoil(self, inputs, results):
        return tuple(r.to(torch.uint8) for r in results)


class WritesToInputs(Flawed):
    """Uses an input as its scratch memory."""

    def spoil(self, inputs, results):
        inputs[0].mul_(2)
        return results


class ReturnsInputs(Flawed):
    """Computes the first result in place."""

    def spoil(self, inputs, results):
        shared = inputs[0].view(-1)[: results[0].numel()].view(results[0].shape)
        return (shared.copy_(results[0]), *results[1:])


class SharesResults(Flawed):
    """All results in one buffer, each from its start."""

    def spoil(self, inputs, results):
        buffer = torch.empty(max(r.numel() for r in results))
        return tuple(buffer[: r.numel()].view(r.shape).copy_(r) for r in results)


class ReusesBuffers(Flawed):
    """Gives the same memory at every call."""

    buffers = None

    def spoil(self, inputs, results):
        if self.buffers is None:
            self.buffers = tuple(r.clone() for r in results)
        return tuple(b.copy_(r) for b, r in zip(self.buffers, results, strict=True))


class BringsToOneBuffer(Flawed):
    """Brings every result of one size to the CPU into one memory, as into a pinned one."""

    def __init__(self, correct):
        super().__init__(correct)
        self.buffers = {}

    def to_cpu(self, tensor):
        key = (tensor.dtype, tensor.shape)
        return self.buffers.setdefault(key, torch.empty_like(tensor, device="cpu")).copy_(tensor)


class KnowsInputsByAddress(Flawed):
    """Binds inputs by their address: the second of two with one address is never bound."""

    def __call__(self, *inputs):
        seen = set()
        bound = []
        for t in inputs:
            bound.append(torch.zeros_like(t) if t.data_ptr() in seen else t)
            seen.add(t.data_ptr())
        return self.correct(*bound)


class Reverses(Flawed):
    def spoil(self, inputs, results):
        return results[::-1]


class SharesInputsAmongThreads(Flawed):
    """One request for all callers, and time to overwrite it."""

    def __call__(self, *inputs):
        self.bound = inputs
        time.sleep(0.002)
        return self.correct(*self.bound)


class ObeysAutocast(Flawed):
    def __call__(self, *inputs):
        return self.correct._run(*inputs)


class ChoosesBFloat16(Flawed):
    """Whatever it was asked for."""

    def facts(self):
        return {"precision": "bf16"}


class SaysAnything(Flawed):
    def facts(self):
        return {"precision": "fp32", "device": torch.device("cpu")}


class ChangesAtItsFirstCall(Flawed):
    """Says what it was asked for until it has looked."""

    called = False

    def spoil(self, inputs, results):
        self.called = True
        return results

    def facts(self):
        return {"precision": "fp32"} if self.called else {}


freezes_rows = flawed(FreezesRows)
ignores_strides = flawed(IgnoresStrides, strided_inputs=True)
flattens_empty = flawed(FlattensEmpty)
has_no_scalars = flawed(HasNoScalars)
counts_in_floats = flawed(CountsIn32BitFloats)
drops_nan = flawed(DropsNaN)
clamps = flawed(Clamps)
integers_as_floats = flawed(IntegersAsFloats)
booleans_as_bytes = flawed(BooleansAsBytes)
writes_to_inputs = flawed(WritesToInputs)
returns_inputs = flawed(ReturnsInputs)
shares_results = flawed(SharesResults)
reuses_buffers = flawed(ReusesBuffers)
brings_to_one_buffer = flawed(BringsToOneBuffer)
knows_by_address = flawed(KnowsInputsByAddress)
reverses = flawed(Reverses)
shares_among_threads = flawed(SharesInputsAmongThreads)
obeys_autocast = flawed(ObeysAutocast)
chooses_bfloat16 = flawed(ChoosesBFloat16)
says_anything = flawed(SaysAnything)
changes_at_its_first_call = flawed(ChangesAtItsFirstCall)
