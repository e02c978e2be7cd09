"""Between segments and at the ends: what is copied, what is not, who is blamed for a copy.

``Tensor.to("cpu:0")`` copies what lives on the ``cpu``: a backend that says so is a second device
here. (The copy says ``cpu`` again, so that coming back is no second copy.)
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

import hardpoint as hp
from eager_backend import Provider
from hardpoint import Device, Executable
from hardpoint.runtime.boundary import Copies, CopyError, aligned, entering
from splitting import Scatter, program

SECOND = "cpu:0"


class Inside(Executable):
    """An executable that keeps what it took and gave."""

    def __init__(self, inner):
        self.inner, self.seen, self.given = inner, [], []

    def __call__(self, *inputs):
        self.seen.append(inputs)
        self.given.append(self.inner(*inputs))
        return self.given[-1]


class OnDevice(Provider):
    """A backend whose tensors live on ``device``."""

    def __init__(self, name, device, wrap=Inside):
        super().__init__(name, spoil=wrap)
        self.backend.devices = lambda: [Device("0", name, torch_device=device)]


def mounted(**devices):
    registry = hp.Registry(path=[])
    for name, device in devices.items():
        registry.add("backend", name, OnDevice(name, device))
    return registry


def compiled(registry, targets, case="grouped_attention", run=1, **options):
    captured = program(case) if isinstance(case, str) else case
    plan = hp.plan(captured, targets=targets, partitioner=Scatter(1, len(targets), run), registry=registry)  # fmt: skip
    return hp.compile(plan, registry=registry, **options)


def test_on_one_device_a_tensor_is_handed_on_as_it_is():
    model = compiled(mounted(a="cpu", b="cpu"), ("a", "b"))
    x = torch.randn(2, 3, 8)
    result = model(x)
    assert [dict(s.copies.counts()) for s in model.segments] == [{}] * len(model.segments)
    made = {t.data_ptr(): t for s in model.segments for t in s.executable.given[-1]}
    taken = [t.data_ptr() for s in model.segments for t in s.executable.seen[-1]]
    assert set(taken) <= {*made, x.data_ptr()}
    assert result.data_ptr() in made


def test_across_devices_it_is_one_copy_of_each_input_and_the_result_comes_home():
    model = compiled(mounted(near="cpu", far=SECOND), ("near", "far"))
    peer = compiled(mounted(near="cpu"), ("near",))
    before = {s.id: s.copies.counts().get("moved", 0) for s in model.segments}
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(model(x), peer(x))
    slots = {0: x}
    for step in model.schedule.steps:
        (segment,) = [s for s in model.segments if s.id == step.segment]
        taken, there = segment.executable.seen[-1], [slots[i] for i in step.inputs]
        copied = [t.data_ptr() != was.data_ptr() for t, was in zip(taken, there, strict=True)]
        assert copied == [segment.target.backend == "far"] * len(taken)
        assert segment.copies.counts().get("moved", 0) - before[segment.id] == sum(copied)
        slots |= dict(zip(step.outputs, segment.executable.given[-1], strict=True))
    assert {s.target.backend for s in model.segments} == {"near", "far"}


class Brings(Inside):
    """Brings results to the CPU in a way of its own."""

    def __init__(self, inner):
        super().__init__(inner)
        self.brought = []

    def to_cpu(self, tensor):
        found = tensor.clone()
        self.brought.append((tensor.data_ptr(), found.data_ptr()))
        return found


@pytest.mark.parametrize("targets", [("far", "near"), ("far",), ("near", "far")])
def test_what_goes_to_the_cpu_is_brought_by_the_executable_that_made_it(targets):
    registry = mounted(near="cpu")
    registry.add("backend", "far", OnDevice("far", SECOND, Brings))
    model, peer = compiled(registry, targets), compiled(mounted(near="cpu"), ("near",))
    far = [s for s in model.segments if s.target.backend == "far"]
    near = [s for s in model.segments if s.target.backend == "near"]
    for segment in far:
        segment.executable.brought.clear()
    x = torch.randn(2, 3, 8)
    result = model(x)
    torch.testing.assert_close(result, peer(x))
    made = {t.data_ptr() for s in far for t in s.executable.given[-1]}
    taken = {t.data_ptr() for s in near for t in s.executable.seen[-1]}
    brought = [pair for s in far for pair in s.executable.brought]
    assert brought
    assert {source for source, _ in brought} <= made
    assert {place for _, place in brought} <= taken | {result.data_ptr()}
    assert not (taken | {result.data_ptr()}) & made  # nothing as it lies on the device


def lost() -> Exception:
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    error.error_code = 700
    return error


FAULTS = [
    (lambda: hp.OutOfMemory("nothing more can be pinned", remedy="free some"), hp.OutOfMemory),
    (MemoryError, hp.OutOfMemory),
    (lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), hp.OutOfMemory),
    (lambda: RuntimeError("std::bad_alloc"), hp.OutOfMemory),
    (lost, hp.DeviceLost),
]


def bringing(fault):
    """A registry whose backend ``far`` raises ``fault()`` when it brings to the CPU, once told."""

    class Fails(Inside):
        now = False

        def to_cpu(self, tensor):
            if Fails.now:
                raise fault()
            return tensor

    registry = mounted(near="cpu")
    registry.add("backend", "far", OnDevice("far", SECOND, Fails))
    return registry, Fails


@pytest.mark.parametrize("targets", [("far", "near"), ("far",)])
@pytest.mark.parametrize(("fault", "kind"), FAULTS)
def test_a_fault_on_the_way_to_the_cpu_is_the_maker_s_and_a_fallback_s(fault, kind, targets):
    registry, fails = bringing(fault)
    x = torch.randn(2, 3, 8)
    model, bare = compiled(registry, targets, fallback="near"), compiled(registry, targets)
    want = model(x)
    fails.now = True
    with pytest.raises(kind) as error:
        bare(x)
    assert error.value.provider == "backend:far"
    with pytest.warns(hp.HardpointWarning, match="from far to near"):
        got = model(x)
    torch.testing.assert_close(got, want)
    assert {row["from"] for row in model.fell_back} == {"far"}
    assert {str(s.target) for s in model.segments} == {"near"}


@pytest.mark.parametrize("targets", [("far", "near"), ("far",)])
def test_a_plain_failure_on_the_way_to_the_cpu_is_the_maker_s(targets):
    registry, fails = bringing(lambda: AttributeError("no such buffer"))
    model = compiled(registry, targets, fallback="near")
    fails.now = True
    with pytest.raises(hp.ProviderFailed, match="failed on far") as error:
        model(torch.randn(2, 3, 8))
    assert error.value.provider == "backend:far"
    assert error.value.cause == "AttributeError: no such buffer"


class Twice(nn.Module):
    def forward(self, x):
        return torch.relu(x).exp()


@pytest.mark.parametrize("targets", [("far", "near"), ("far",)])
@pytest.mark.parametrize(
    ("way", "found"),
    [
        (lambda t: t.double(), "float64[2, 3, 8] on cpu"),
        (lambda t: t.flatten(), "float32[48] on cpu"),
        (lambda t: t.to("meta"), "float32[2, 3, 8] on meta"),
        (lambda t: None, "NoneType"),
    ],
)
def test_another_tensor_brought_to_the_cpu_breaks_the_contract(way, found, targets):
    class Wrong(Inside):
        wrong = False

        def to_cpu(self, tensor):
            return way(tensor) if Wrong.wrong else tensor

    registry = mounted(near="cpu")
    registry.add("backend", "far", OnDevice("far", SECOND, Wrong))
    captured = hp.capture(Twice().eval(), (torch.ones(2, 3, 8),), registry=hp.Registry(path=[]))
    model = compiled(registry, targets, captured)
    Wrong.wrong = True
    with pytest.raises(hp.ContractViolation) as error:
        model(torch.ones(2, 3, 8))
    assert error.value.what == "segment s0 on far brought a result to the CPU that is another"
    assert error.value.provider == "backend:far"
    assert error.value.cause == (
        f"its executable's to_cpu() was given float32[2, 3, 8] on cpu and returned {found}"
    )
    assert error.value.remedy == "report it to the plugin's author"


@pytest.mark.parametrize("case", ["counter", "ring_buffer", "two_buffers_swapped"])
def test_state_is_kept_where_it_was_and_right_whatever_device_computes_it(case):
    one, other = (compiled(mounted(a=d), ("a",), case) for d in ("cpu", SECOND))
    for i in range(3):
        x = torch.full((2, 4), float(i))
        for got, want in zip(_flat(other(x)), _flat(one(x)), strict=True):
            torch.testing.assert_close(got, want)
            assert got.device == torch.device("cpu")
    for name, held in other.held.items():
        torch.testing.assert_close(held, one.held[name])
        assert held.device == torch.device("cpu")


def _flat(value):
    return value if isinstance(value, tuple) else (value,)


class Lost(torch.Tensor):
    """A result of an asynchronous device that fails when it is read, not when it was asked for."""

    lost = False

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if cls.lost and function is torch.Tensor.to:
            raise lost()
        return super().__torch_function__(function, types, args, kwargs or {})


class Asynchronous(Inside):
    def __call__(self, *inputs):
        plain = [t.as_subclass(torch.Tensor) for t in inputs]
        return tuple(t.as_subclass(Lost) for t in super().__call__(*plain))


@pytest.mark.parametrize("targets", [("far", "near"), ("far",)])
def test_an_error_that_comes_up_in_a_copy_is_blamed_on_the_device_that_it_comes_from(
    targets, monkeypatch
):
    registry = mounted(near="cpu")
    registry.add("backend", "far", OnDevice("far", SECOND, Asynchronous))
    x = torch.randn(2, 3, 8)
    model = compiled(registry, targets, fallback="near")
    bare = compiled(registry, targets)
    want = model(x)
    monkeypatch.setattr(Lost, "lost", True)
    with pytest.raises(hp.DeviceLost, match="on far lost its device"):
        bare(x)
    with pytest.warns(hp.HardpointWarning, match="from far to near"):
        got = model(x)
    monkeypatch.setattr(Lost, "lost", False)
    torch.testing.assert_close(got, want.as_subclass(torch.Tensor))
    assert {str(s.target) for s in model.segments} == {"near"}
    assert {row["from"] for row in model.fell_back} == {"far"}


def test_a_copy_that_fails_for_want_of_memory_is_the_destination_s():
    class Full(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            if function is torch.Tensor.to:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().__torch_function__(function, types, args, kwargs or {})

    model = compiled(mounted(near="cpu", far=SECOND), ("far",))
    with pytest.raises(hp.OutOfMemory, match="segment s0 on far ran out of memory"):
        model(torch.randn(2, 3, 8).as_subclass(Full))


def test_a_foreign_array_is_refused_with_the_way_to_share_it():
    model = compiled(mounted(a="cpu"), ("a",), hp.capture(nn.ReLU().eval(), (torch.ones(3),), registry=hp.Registry(path=[])))  # fmt: skip
    array = np.array([-1.0, 2.0, 3.0], dtype=np.float32)
    with pytest.raises(hp.InputError) as error:
        model(array)
    assert str(error.value) == (
        "input input is ndarray, it must be a tensor\n"
        "  remedy: share its memory: torch.from_dlpack(input); the program takes input: float32[3]"
    )
    shared = torch.from_dlpack(array)
    assert shared.data_ptr() == array.ctypes.data
    back = np.from_dlpack(model(shared))
    assert back.tolist() == [0, 2, 3]


def test_nothing_is_put_around_an_executable_that_takes_all_there_is():
    def call(*inputs):
        return inputs

    assert entering(call, Copies()) is call


def test_a_copy_that_fails_names_the_input():
    def call(*inputs):
        return inputs

    enter = entering(call, Copies(), device=torch.device("cpu"))
    with pytest.raises(CopyError) as error:
        enter(torch.ones(2), torch.ones(2, device="meta"))
    assert error.value.position == 1
    assert isinstance(error.value.original, NotImplementedError)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(0, 5), max_size=4),
    power=st.integers(0, 13),
    offset=st.integers(0, 7),
    dtype=st.sampled_from([torch.uint8, torch.bool, torch.bfloat16, torch.float32, torch.int64, torch.complex64]),
    turned=st.booleans(),
)  # fmt: skip
def test_an_aligned_copy_is_aligned_and_equal(shape, power, offset, dtype, turned):
    count = int(np.prod(shape, dtype=int))
    whole = torch.arange(count + offset).to(dtype)
    tensor = whole[offset:].view(shape)
    tensor = tensor.permute(list(reversed(range(len(shape))))) if turned else tensor
    copy = aligned(tensor, 2**power)
    assert copy.data_ptr() % 2**power == 0 or not count
    assert copy.is_contiguous()
    assert torch.equal(copy, tensor)
