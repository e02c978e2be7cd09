"""What only a device can show. Skipped, with the reason, where there is none.

These tests were written without one: the first run on hardware is the test of the tests, too.
"""

from __future__ import annotations

import multiprocessing
import threading

import pytest
import torch

import hardpoint as hp
from hardpoint import ProbeRequest
from hardpoint.planning import compute_nodes
from hardpoint_cuda import plugin
from hardpoint_cuda.vendor import CUDA

FOUND = plugin.hardpoint_backend_probe(ProbeRequest())
pytestmark = pytest.mark.skipif(
    not FOUND.available, reason=f"no CUDA device: {FOUND.reason or 'available'}"
)
BOUNDS = {"fp32": 1e-4, "bf16": 5e-2, "fp16": 5e-3, "int8w": 5e-2}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 16, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(16)
        self.last = torch.nn.Linear(16, 10)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def made(precision="fp32", device="0", dynamic=None, **options):
    torch.manual_seed(0)
    model, x = Network().eval(), torch.randn(4, 3, 16, 16)
    program = hp.capture(model, (x,), dynamic=dynamic)
    plan = hp.plan(program, targets=[f"cuda:{device}"])
    compiled = hp.compile(
        plan, precision=precision, options={"cuda": options}, max_error=BOUNDS[precision]
    )
    return model, x, compiled


@pytest.mark.slow
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
@pytest.mark.parametrize("precision", BOUNDS)
def test_every_mode_and_precision_gives_the_model_s_numbers(mode, precision, graphs, tmp_path):
    model, x, compiled = made(precision, mode=mode, graphs=graphs)
    expected = model(x).detach()
    bound = BOUNDS[precision]
    torch.testing.assert_close(compiled(x), expected, rtol=bound, atol=bound)
    again = hp.load(compiled.save(tmp_path / "m.pt2"))
    torch.testing.assert_close(again(x), expected, rtol=bound, atol=bound)


@pytest.mark.slow
def test_tensorrt_takes_a_network_whole():
    pytest.importorskip("torch_tensorrt")
    model, x, compiled = made(mode="tensorrt")
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_float32_is_float32_and_tf32_is_what_was_asked_for():
    _, _, exact = made()
    _, _, rounded = made(tf32=True)
    assert exact.segments[0].executable.facts()["tf32"] == []
    assert rounded.segments[0].executable.facts()["tf32"] == ["conv", "matmul", "rnn"]


@pytest.mark.parametrize("mode", ["eager", "inductor"])
def test_results_of_a_recorded_call_stay_valid_after_the_next(mode):
    model, x, compiled = made(mode=mode, graphs=True)
    executable = compiled.segments[0].executable
    first = executable(x.cuda())[0]
    copy = first.clone()
    executable(-x.cuda())
    torch.cuda.synchronize()
    assert torch.equal(first, copy)
    torch.testing.assert_close(first.cpu(), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_each_set_of_sizes_is_recorded_and_the_oldest_goes():
    model, _, compiled = made(dynamic={"x": {0: "batch"}}, graphs=True, graph_shapes=2)
    for batch in (2, 3, 4, 2):
        x = torch.randn(batch, 3, 16, 16)
        torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert compiled.segments[0].executable.facts()["recorded"] == 2


def test_threads_with_streams_of_their_own_share_one_recording():
    model, _, compiled = made(graphs=True)
    executable, failures = compiled.segments[0].executable, []

    def work(seed):
        x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(20):
                found = executable(x.cuda())[0].cpu()
                if not torch.allclose(found, model(x).detach(), rtol=1e-4, atol=1e-4):
                    failures.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


class Halves(hp.Partitioner):
    """The first operations on the first target, the others on the second."""

    def partition(self, program, targets, objective, costs):
        names = [node.name for node in compute_nodes(program)]
        first, second = (choice.target for choice in targets)
        half = len(names) // 2
        chosen = {n: first if i < half else second for i, n in enumerate(names)}
        return hp.Assignment(chosen)


class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


def halved(model, x, *targets):
    """The model cut in two, one target each."""
    program = hp.capture(model, (x,))
    compiled = hp.compile(hp.plan(program, targets=list(targets), partitioner=Halves()))
    assert [str(segment.target) for segment in compiled.segments] == list(targets)
    return compiled


def moved(compiled):
    return [segment.copies.counts().get("moved", 0) for segment in compiled.segments]


def test_on_the_same_device_nothing_is_copied_at_the_boundary():
    class Through(torch.nn.Module):
        def forward(self, x):
            return x.view(-1), x + 1

    x = torch.randn(4, 4, device="cuda:0")
    compiled = hp.compile(hp.plan(hp.capture(Through().eval(), (x,)), targets=["cuda:0"]))
    view, larger = compiled(x)
    assert larger.device == x.device
    assert view.data_ptr() == x.data_ptr()  # in and out again
    assert [dict(segment.copies.counts()) for segment in compiled.segments] == [{}]


def test_two_segments_on_one_device_hand_a_tensor_on_as_it_is():
    model, x = Two().eval().cuda(), torch.randn(3, 8, device="cuda:0")
    compiled = halved(model, x, "cuda", "cuda:0")  # two targets, one device
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)
    assert [dict(segment.copies.counts()) for segment in compiled.segments] == [{}, {}]


def test_misaligned_inputs_of_compiled_code_are_right_too():
    torch.manual_seed(0)
    model, x = Network().eval().cuda(), torch.randn(4, 3, 16, 16, device="cuda:0")
    plan = hp.plan(hp.capture(model, (x,)), targets=["cuda:0"])
    compiled = hp.compile(plan, options={"cuda": {"mode": "inductor"}}, max_error=1e-4)
    view = torch.empty(x.numel() + 1, device="cuda:0")[1:].view_as(x)
    view.copy_(x)
    assert view.data_ptr() % 16
    torch.testing.assert_close(compiled(view), model(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("graphs", [False, True])
def test_what_goes_to_the_cpu_is_pinned_and_right_and_stays_so(graphs):
    model, x, compiled = made(pinned=True, graphs=graphs)
    plain = made(graphs=graphs)[2]
    first = compiled(x)
    kept = first.clone()
    assert first.is_pinned()
    assert not plain(x).is_pinned()
    torch.testing.assert_close(first, model(x).detach(), rtol=1e-4, atol=1e-4)
    for seed in range(1, 20):
        other = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(compiled(other), model(other).detach(), rtol=1e-4, atol=1e-4)
    assert torch.equal(first, kept)


@pytest.mark.skipif(len(FOUND.devices) < 2, reason="one device only")
@pytest.mark.parametrize("order", [("cuda:0", "cuda:1"), ("cuda:1", "cuda:0")])
def test_two_devices_hand_tensors_over(order):
    model, x = Two().eval(), torch.randn(3, 8)
    compiled = halved(model, x, *order)
    before = moved(compiled)
    result = compiled(x)
    torch.testing.assert_close(result, model(x).detach(), rtol=1e-4, atol=1e-4)
    # One copy each: of the input to the first, of what that computed to the second.
    assert [now - then for now, then in zip(moved(compiled), before, strict=True)] == [1, 1]
    assert result.device == x.device  # it came home


@pytest.mark.skipif(len(FOUND.devices) < 2, reason="one device only")
def test_two_devices_give_the_same():
    model, x = Two().eval(), torch.randn(3, 8)
    for device in ("0", "1"):
        compiled = hp.compile(hp.plan(hp.capture(model, (x,)), targets=[f"cuda:{device}"]))
        torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def test_out_of_memory_is_an_error_that_names_the_device_and_the_next_call_works():
    model, x, compiled = made(dynamic={"x": {0: "batch"}})
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 256 * 2**20 / total))
    try:
        with pytest.raises(hp.OutOfMemory, match=r"cuda:0 \(.*\) ran out of its memory"):
            compiled.segments[0].executable(torch.empty(1, device="cuda").expand(2**17, 3, 16, 16))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(compiled(x), model(x).detach(), rtol=1e-4, atol=1e-4)


def _after_a_probe(answers):
    found = plugin.hardpoint_backend_probe(ProbeRequest())
    answers.put((found.available, torch.cuda.is_initialized()))
    child = multiprocessing.get_context("fork").Process(
        target=lambda: answers.put(torch.ones(2, device="cuda").sum().item())
    )
    child.start()
    child.join(120)


def test_a_process_that_has_probed_can_still_be_forked():
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=_after_a_probe, args=(answers,))
    process.start()
    assert answers.get(timeout=120) == (True, False)
    assert answers.get(timeout=120) == 2
    process.join()


def test_every_declared_mode_is_tried_above():
    assert set(CUDA.modes) == {"eager", "inductor", "aot", "tensorrt"}
