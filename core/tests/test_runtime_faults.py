"""Faults of a runtime that a host can act on: what counts as one, and what its reader is told."""

from __future__ import annotations

import pytest
import torch

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Executable
from hardpoint.runtime.faults import fault_of
from splitting import Scatter, program


class Raises(Executable):
    """An executable that raises from the given call on."""

    def __init__(self, inner, error, after):
        self.inner, self.error, self.left = inner, error, after

    def __call__(self, *inputs):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.inner(*inputs)


def raising(error, after=3):
    """A model whose calls while compiling go well (its state makes them three), and none after."""
    registry = hp.Registry(path=[])
    registry.add("backend", "a", Provider("a", spoil=lambda inner: Raises(inner, error, after)))
    plan = hp.plan(program("counter"), targets=("a",), partitioner=Scatter(1, 1, 1), registry=registry)  # fmt: skip
    return hp.compile(plan, registry=registry)


def accelerator(code, text="CUDA error: an illegal memory access was encountered\nadvice\nmore"):
    error = torch.AcceleratorError(text)
    if code is not None:
        error.error_code = code
    return error


def real_allocator_error():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    return caught.value


def real_memory_error():
    with pytest.raises(MemoryError) as caught:
        bytearray(1 << 60)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        real_memory_error(),
        real_allocator_error(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        accelerator(2, "CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 8.99 GB)"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("[GPU] clEnqueueNDRangeKernel, error code: -5 CL_OUT_OF_RESOURCES"),
    ],
    ids=lambda e: f"{type(e).__name__}: {str(e)[:20]}",
)
def test_what_counts_as_out_of_memory(error):
    with pytest.raises(hp.OutOfMemory) as caught:
        raising(error)(torch.ones(2, 4))
    assert str(caught.value).startswith("segment s0 on a ran out of memory\n")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("code", [None, 46, 700, 710, 719])
def test_an_error_of_the_accelerator_is_a_lost_device(code):
    with pytest.raises(hp.DeviceLost) as caught:
        raising(accelerator(code))(torch.ones(2, 4))
    assert str(caught.value) == (
        "segment s0 on a lost its device\n"
        "  provider: backend:a (from this process)\n"
        "  cause: AcceleratorError: CUDA error: an illegal memory access was encountered\n"
        "  remedy: make the model again (a lost device may need a new process), or compile with "
        "fallback=['cpu'], which goes on elsewhere"
    )


@pytest.mark.parametrize(
    "error",
    [
        accelerator(9, "CUDA error: invalid configuration argument"),
        accelerator(209, "CUDA error: no kernel image is available for execution on the device"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("out of memory"),
        hp.ProviderFailed("the SDK says: out of memory"),
        hp.InputError("input x: its memory is out of range"),
    ],
    ids=lambda e: f"{type(e).__name__}: {str(e)[:20]}",
)
def test_what_is_no_fault_stays_what_it_was(error):
    assert fault_of(error) is None
    with pytest.raises(hp.HardpointError) as caught:
        raising(error)(torch.ones(2, 4))
    assert not isinstance(caught.value, hp.RuntimeFault)


def test_a_fault_that_the_plugin_raises_is_the_plugin_s_own_with_what_it_left_out():
    own = hp.DeviceLost("the NPU was reset by its watchdog", cause="status 0x70010004")
    with pytest.raises(hp.DeviceLost) as caught:
        raising(own)(torch.ones(2, 4))
    assert caught.value is own
    assert str(own) == (
        "the NPU was reset by its watchdog\n"
        "  provider: backend:a (from this process)\n"
        "  cause: status 0x70010004\n"
        "  remedy: make the model again (a lost device may need a new process), or compile with "
        "fallback=['cpu'], which goes on elsewhere"
    )


def test_a_fault_is_a_failure_of_its_provider_for_a_host_that_does_not_tell_them_apart():
    with pytest.raises(hp.ProviderFailed):
        raising(MemoryError())(torch.ones(2, 4))


def test_a_call_that_fails_writes_nothing_back():
    model = raising(MemoryError(), after=4)
    model(torch.ones(2, 4))
    with pytest.raises(hp.OutOfMemory, match="MemoryError: no message"):
        model(torch.ones(2, 4))
    assert int(model.held["count"]) == 1


def test_an_artifact_that_does_not_fit_in_memory_says_so():
    def refuse(executable):
        raise MemoryError("weights of 12 GiB")

    registry = hp.Registry(path=[])
    registry.add("backend", "a", Provider("a", spoil=refuse))
    plan = hp.plan(program("grouped_attention"), targets=("a",), registry=registry, partitioner=Scatter(1, 1, 1))  # fmt: skip
    with pytest.raises(hp.OutOfMemory) as caught:
        hp.compile(plan, registry=registry)
    assert str(caught.value).startswith("opening segment s0 on a ran out of memory\n")
    assert "cause: MemoryError: weights of 12 GiB" in str(caught.value)
