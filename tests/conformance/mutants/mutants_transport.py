"""Transports whose collectives have one flaw each."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from mutants_transport_base import NAMES, Group, InFront, Provider
from torch._C._distributed_c10d import Work, _create_work_from_future


def done(value: Any = None) -> Any:
    """Work that is complete."""
    future: torch.futures.Future[Any] = torch.futures.Future()
    future.set_result(value)
    return _create_work_from_future(future)


class SumsForMax(Group):
    def allreduce(self, tensors, opts):
        if opts.reduceOp == dist.ReduceOp.MAX:
            opts.reduceOp = dist.ReduceOp.SUM
        return self.inner.allreduce(tensors, opts)


class ReducesBfloat16AsIntegers(Group):
    def allreduce(self, tensors, opts):
        if tensors[0].dtype != torch.bfloat16:
            return self.inner.allreduce(tensors, opts)
        whole = tensors[0].to(torch.int32)
        self.inner.allreduce([whole], opts).wait()
        tensors[0].copy_(whole)
        return done(tensors)


class BroadcastsFromZero(Group):
    def broadcast(self, tensors, opts):
        opts.rootRank = 0
        return self.inner.broadcast(tensors, opts)


class KeepsNoInput(Group):
    """Sorts in place what it was only to read."""

    def all_gather_single(self, output, given, opts):
        work = self.inner.all_gather_single(output, given, opts)
        work.wait()
        given.zero_()
        return done(output)


class AloneFails(Group):
    def allgather(self, outputs, inputs, opts):
        if self.size() == 1:
            raise RuntimeError("a ring needs two ranks")
        return self.inner.allgather(outputs, inputs, opts)


class CarriesDoublesAsFloats(Group):
    def broadcast(self, tensors, opts):
        if tensors[0].dtype != torch.float64:
            return self.inner.broadcast(tensors, opts)
        narrow = tensors[0].float()
        self.inner.broadcast([narrow], opts).wait()
        tensors[0].copy_(narrow)
        return done(tensors)


class DiesOfNothing(Group):
    def broadcast(self, tensors, opts):
        if not tensors[0].numel():
            os.abort()
        return self.inner.broadcast(tensors, opts)


class DeadlocksOnUnequal(Group):
    """One rank takes a short cut that the other does not."""

    def all_to_all_single(self, output, given, takes, gives, opts):
        if output.numel() < given.numel() and len(set(gives)) == self.size():
            return done(output)
        return self.inner.all_to_all_single(output, given, takes, gives, opts)


class ReducesTheFirstMegabytes(Group):
    def allreduce(self, tensors, opts):
        return self.inner.allreduce([tensors[0].flatten()[: 4 << 20]], opts)


class RefusesStrides(Group):
    """Correct: takes contiguous tensors alone, and says so on every rank."""


def _refusing(name):
    def call(self, *arguments, **more):
        given = torch.utils._pytree.tree_leaves(arguments)
        if not all(t.is_contiguous() for t in given if isinstance(t, torch.Tensor)):
            raise ValueError("tensors must be contiguous")
        return getattr(self.inner, name)(*arguments, **more)

    return call


for _name in NAMES:
    setattr(RefusesStrides, _name, _refusing(_name))


class RefusesOnOneRank(RefusesStrides):
    def broadcast(self, tensors, opts):
        if not tensors[0].is_contiguous() and self.rank() == opts.rootRank:
            raise ValueError("tensors must be contiguous")
        return self.inner.broadcast(tensors, opts)


class DoesNothingInSubgroups(Group):
    world = 0

    def __init__(self, inner):
        super().__init__(inner)
        type(self).world = max(self.world, self.size())

    def allreduce(self, tensors, opts):
        return self.inner.allreduce(tensors, opts) if self.size() == self.world else done(tensors)


_SCRATCH = torch.zeros(2_000_000)


class SharesAScratch(Group):
    """All work of all groups passes through one buffer."""

    def allreduce(self, tensors, opts):
        (tensor,) = tensors
        place = _SCRATCH[: tensor.numel()].copy_(tensor)
        work = self.inner.allreduce([place], opts)
        return CopiedBack(work, place, tensor)


class CopiedBack(Work):
    def __init__(self, work, source, target):
        super().__init__()
        self.work, self.source, self.target = work, source, target

    def wait(self, timeout=None):
        self.work.wait()
        self.target.copy_(self.source)
        return True

    def is_completed(self):
        return self.work.is_completed()


class SaysItIsComplete(Group):
    def allreduce(self, tensors, opts):
        return Hasty(self.inner.allreduce(tensors, opts), None, None)


class Hasty(CopiedBack):
    def wait(self, timeout=None):
        return self.work.wait()

    def is_completed(self):
        return True


class WaitsForNothing(Group):
    def allreduce(self, tensors, opts):
        self.work = self.inner.allreduce(tensors, opts)
        return done(tensors)


class HasNoFuture(Group):
    def allreduce(self, tensors, opts):
        return Hasty(self.inner.allreduce(tensors, opts), None, None)


class FutureOfTheInput(Group):
    def allreduce(self, tensors, opts):
        before = [tensor.clone() for tensor in tensors]
        self.inner.allreduce(tensors, opts).wait()
        return done(before)


class BarrierIsOpen(Group):
    def barrier(self, opts):
        return done()


class ReceivesAside(Group):
    """A large message goes to a copy, and stays there."""

    def recv(self, tensors, source, tag):
        if tensors[0].numel() > 10_000:
            tensors = [tensor.clone() for tensor in tensors]
        return self.inner.recv(tensors, source, tag)


class IgnoresTags(Group):
    def send(self, tensors, target, tag):
        return self.inner.send(tensors, target, 0)

    def recv(self, tensors, source, tag):
        return self.inner.recv(tensors, source, 0)


class CutsBytes(Group):
    """What objects travel in arrives with its end missing."""

    def allgather(self, outputs, inputs, opts):
        work = self.inner.allgather(outputs, inputs, opts)
        work.wait()
        if inputs[0].dtype == torch.uint8:
            for output in outputs[0]:
                output[40:].zero_()
        return done(outputs)


class ForgetsLargeReductions(Group):
    def allreduce(self, tensors, opts):
        return done(tensors) if tensors[0].numel() > 30 else self.inner.allreduce(tensors, opts)


class ScattersWhatItHas(Group):
    def reduce_scatter_single(self, output, given, opts):
        output.copy_(given.chunk(self.size())[self.rank()])
        return done(output)


class ForgetsToReduce(Group):
    def allreduce(self, tensors, opts):
        return done(tensors)


class ReceivesNothing(Group):
    def recv(self, tensors, source, tag):
        work = self.inner.recv(tensors, source, tag)
        work.wait()
        if tensors[0].dtype == torch.float32:
            tensors[0].zero_()
        return done(tensors)


class Once(InFront):
    """A process may make one group in its life."""

    made = 0

    def process_group(self, store, rank, size, timeout):
        type(self).made += 1
        if self.made > 1:
            raise RuntimeError("the network is initialised already")
        return super().process_group(store, rank, size, timeout)


class Mute(Group):
    """A group that knows no name: what PyTorch builds on names does not find it."""

    def getGroupName(self):
        raise RuntimeError("ProcessGroup name not set")

    @property
    def group_name(self):
        raise RuntimeError("ProcessGroup name not set")


class Impatient(InFront):
    """Goes ahead without the ranks that did not come."""

    def connected(self, store, rank, size, timeout):
        try:
            return super().connected(store, rank, size, timeout)
        except Exception:
            return Claims(store, rank, size)


class Claims(dist.ProcessGroup):
    def __init__(self, store, rank, size):
        super().__init__(rank, size)


misspelt = Provider(collectives=("all_redcue", "broadcast"))
no_such_dtype = Provider(dtypes=("float32", "half_float"))
no_such_reduction = Provider(reductions=("SUM", "MEDIAN"))
moves_nothing = Provider(collectives=())
no_such_device = Provider(devices=("ncpu",))
far_away = Provider(devices=("maia", "hpu"))

sums_for_max = Provider(SumsForMax)
reduces_bfloat16_as_integers = Provider(ReducesBfloat16AsIntegers)
claims_float8 = Provider(dtypes=("float32", "float8_e5m2"), reductions=("SUM",))
broadcasts_from_zero = Provider(BroadcastsFromZero)
keeps_no_input = Provider(KeepsNoInput)
alone_fails = Provider(AloneFails)
carries_doubles_as_floats = Provider(CarriesDoublesAsFloats)
dies_of_nothing = Provider(DiesOfNothing)
deadlocks_on_unequal = Provider(DeadlocksOnUnequal)
reduces_the_first_megabytes = Provider(ReducesTheFirstMegabytes)
ignores_strides = Provider()
refuses_strides = Provider(RefusesStrides)
refuses_on_one_rank = Provider(RefusesOnOneRank)
does_nothing_in_subgroups = Provider(DoesNothingInSubgroups)
shares_a_scratch = Provider(SharesAScratch)
says_it_is_complete = Provider(SaysItIsComplete)
waits_for_nothing = Provider(WaitsForNothing)
has_no_future = Provider(HasNoFuture)
future_of_the_input = Provider(FutureOfTheInput)
barrier_is_open = Provider(BarrierIsOpen)
receives_aside = Provider(ReceivesAside)
ignores_tags = Provider(IgnoresTags)
cuts_bytes = Provider(CutsBytes)
forgets_large_reductions = Provider(ForgetsLargeReductions)
scatters_what_it_has = Provider(ScattersWhatItHas)
forgets_to_reduce = Provider(ForgetsToReduce)
receives_nothing = Provider(ReceivesNothing)
once = Provider(Once)
mute = Provider(Mute)
impatient = Provider(Impatient)
