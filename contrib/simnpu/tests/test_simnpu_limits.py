"""The chip's limits, and what it copies: counted exactly, and said in words with both figures."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import hardpoint as hp
from hardpoint import ArtifactError, CompileError, CompileOptions
from hardpoint_contrib_simnpu.chip import SCRATCHPAD, in_bytes
from hardpoint_contrib_simnpu.emitter import Emitter, blocks
from hardpoint_contrib_simnpu.memory import Allocator

r = torch.randn


def test_every_copy_and_cycle_of_a_small_network_is_counted(build, function):
    x = r(2, 8)
    run = build(function(lambda x, w, b: torch.relu(F.linear(x, w, b)), r(4, 8), r(4)), x)
    assert run.counters().calls == 0
    run(x)
    once = run.counters()
    assert once.bytes_in == 2 * 8 * 4  # float32 on the host
    assert once.bytes_out == 2 * 4 * 4
    weight, bias, given, result = 2 * 4 * 8, 2 * 4, 2 * 2 * 8, 2 * 2 * 4  # fp16 on the device
    assert once.bytes_loaded == weight + bias + given + result
    assert once.bytes_stored == 2 * result
    # COPY_IN, LOAD three times, MATMUL, STORE, LOAD, RELU, STORE, COPY_OUT
    assert once.instructions == 10
    assert once.cycles == 10 * (16 + 1)
    assert once.peak_scratchpad == 192 + result  # three operands, each from a multiple of 64
    run(x)
    twice = run.counters()
    assert (twice.calls, twice.bytes_in, twice.cycles) == (2, 128, 340)
    assert twice.peak_scratchpad == once.peak_scratchpad


def test_int8_loads_half_of_the_weights_bytes(build, function):
    x = r(1, 512)
    module = function(F.linear, r(512, 512))
    loaded = {}
    for precision in ("fp16", "int8"):
        run = build(module, x, precision=precision)
        run(x)
        loaded[precision] = run.counters().bytes_loaded
    assert loaded["fp16"] == 2 * 512 * 512 + 2 * 512
    # Weights, their scales, and the activation: once to be quantized, once as int8.
    assert loaded["int8"] == 512 * 512 + 4 * 512 + 2 * 512 + 512


def test_what_is_larger_than_the_scratchpad_is_cut_into_tiles(build, function):
    x = r(600, 2000)
    run = build(function(F.linear, r(2500, 2000)), x)
    run(x)
    counters = run.counters()
    assert SCRATCHPAD * 0.8 < counters.peak_scratchpad <= SCRATCHPAD
    assert counters.bytes_loaded > 2 * (2500 * 2000 + 600 * 2000)
    assert counters.bytes_stored == 2 * 600 * 2500


def test_a_view_costs_nothing_and_a_permutation_one_copy(build, function):
    x = r(4, 6)
    same = build(function(lambda x: x.reshape(2, 12)), x)
    turned = build(function(lambda x: x.permute(1, 0)), x)
    same(x)
    turned(x)
    assert (same.counters().bytes_loaded, same.counters().instructions) == (0, 2)
    assert (turned.counters().bytes_loaded, turned.counters().bytes_stored) == (48, 48)


def test_memory_is_used_again_when_a_value_is_no_longer_needed(backend, export, function):
    def chain(x):
        for _ in range(40):
            x = torch.relu(x)
        return x

    x = r(1000, 500)
    device = backend.devices()[0]
    program = export(function(chain), x)
    made = backend.compile(program, device, CompileOptions(precision="fp16"))
    assert made.metadata["dram_bytes"] == pytest.approx(2 * x.numel() * 2, rel=0.01)


def test_one_operation_too_large_for_the_device_is_refused_with_both_figures(opened, reasons):
    small = opened({"dram_mib": 1})
    [reason] = reasons(torch.mm, r(1, 1000), r(1000, 1000), on=small).values()
    assert reason == (
        "its tensors take 1.91 MiB (2,004,000 bytes) in fp16, the device has 1 MiB "
        "(1,048,576 bytes) of DRAM"
    )


def layers(x, *weights):
    for weight in weights:
        x = F.linear(x, weight)
    return x


def test_a_segment_too_large_for_the_device_is_refused_with_both_figures(opened, export, function):
    small = opened({"dram_mib": 1})
    program = export(function(layers, r(600, 600), r(600, 600)), r(1, 600))
    device = small.devices()[0]
    assert not small.support(program, device).unsupported  # each alone fits
    with pytest.raises(CompileError) as caught:
        small.compile(program, device, CompileOptions(precision="fp16"))
    assert str(caught.value).splitlines() == [
        "the segment does not fit device 0",
        "  provider: backend:simnpu (from hardpoint-contrib-simnpu 0.1.0)",
        "  cause: it needs 1.37 MiB (1,440,000 bytes) of DRAM for weights and 2.38 KiB (2,432 "
        "bytes) for a call, the device has 1 MiB (1,048,576 bytes)",
        "  remedy: open the backend with a larger dram_mib, or give it fewer operations",
    ]


def test_an_artifact_too_large_for_another_device_is_refused_with_both_figures(
    backend, opened, export, function
):
    program = export(function(layers, r(600, 600), r(600, 600)), r(1, 600))
    made = backend.compile(program, backend.devices()[0], CompileOptions(precision="fp16"))
    small = opened({"dram_mib": 1})
    with pytest.raises(ArtifactError) as caught:
        small.load(made, small.devices()[0])
    assert str(caught.value).splitlines() == [
        "the artifact does not fit device 0",
        "  provider: backend:simnpu (from hardpoint-contrib-simnpu 0.1.0)",
        "  cause: it needs 1.38 MiB (1,442,432 bytes) of DRAM, the device has 1 MiB (1,048,576 "
        "bytes)",
        "  remedy: open the backend with a larger dram_mib, or compile a smaller segment",
    ]


def test_a_segment_of_too_many_instructions_is_refused(backend, export, function, monkeypatch):
    monkeypatch.setattr(Emitter.__init__, "__defaults__", (9,))
    program = export(function(layers, r(6, 6), r(6, 6), r(6, 6)), r(1, 6))
    with pytest.raises(CompileError, match="the segment cannot be compiled") as caught:
        backend.compile(program, backend.devices()[0], CompileOptions(precision="fp16"))
    words = "it takes more than 9 instructions"
    assert caught.value.cause == f"linear_2 (aten.linear.default): {words}"


def test_the_plan_says_what_does_not_fit_the_scratchpad(function):
    image = torch.zeros(1, 16, 400, 400)
    module = function(lambda x, w: torch.relu(F.conv2d(x, w)), r(1, 16, 1, 1)).eval()
    program = hp.capture(module, (image,))
    plan = hp.plan(program, targets=["simnpu", "cpu"])
    assert [str(s.target) for s in plan.segments] == ["cpu", "simnpu"]
    words = "a tile of it takes 4.88 MiB (5,120,000 bytes), the scratchpad has 4 MiB"
    assert words in plan.explain()
    with pytest.raises(hp.PlanError) as caught:
        hp.plan(program, targets="simnpu")
    assert words in caught.value.cause


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 7), (2, 1, 1, 9), (100, 3)])
@pytest.mark.parametrize("elements", [1, 2, 9, 20, 1000])
def test_blocks_cover_every_element_once(shape, elements):
    covered = torch.zeros(shape)
    for starts, sizes in blocks(shape, elements):
        assert torch.Size(sizes).numel() <= elements
        covered[tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))] += 1
    assert bool((covered == 1).all())


def test_the_allocator_gives_back_gaps_and_never_overlaps():
    memory = Allocator()
    first, second, third = memory.take(100), memory.take(64), memory.take(1)
    assert (first, second, third, memory.peak) == (0, 128, 192, 256)
    memory.give_back(second)
    assert memory.take(65) == 256  # the gap is too small
    assert memory.take(64) == 128
    memory.give_back(first)
    assert memory.take(128) == 0
    assert memory.peak == 384


def test_figures_are_readable():
    assert [in_bytes(n) for n in (12, 1536, 4 * 2**20)] == [
        "12 bytes", "1.5 KiB (1,536 bytes)", "4 MiB (4,194,304 bytes)",
    ]  # fmt: skip
