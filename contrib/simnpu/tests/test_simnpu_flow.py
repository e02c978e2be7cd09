"""Beside the CPU in one plan, in a package, in other processes and threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import hardpoint as hp

README = Path(__file__).parents[1] / "README.md"
ANSWER = """
import sys, torch
import hardpoint as hp
x = torch.load(sys.argv[2], weights_only=True)
torch.save(hp.load(sys.argv[1])(x), sys.argv[3])
"""


class Cnn(torch.nn.Module):
    """Batch norm and the mean are not among the chip's operators."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.last = torch.nn.Linear(8, 5)

    def forward(self, x):
        y = F.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return torch.softmax(self.last(y.mean((2, 3))), -1)


class Mlp(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 32)
        self.norm = torch.nn.LayerNorm(32)
        self.last = torch.nn.Linear(32, 4)

    def forward(self, x):
        return self.last(F.gelu(self.norm(self.first(x))))


MODELS = {"cnn": (Cnn, (2, 3, 8, 8)), "mlp": (Mlp, (4, 8))}


@pytest.fixture(params=MODELS)
def model(request):
    kind, shape = MODELS[request.param]
    return kind().eval(), torch.randn(shape)


@pytest.fixture
def mixed(model):
    """A plan for both backends."""
    module, x = model
    return hp.plan(hp.capture(module, (x,)), targets=["simnpu", "cpu"])


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_runs_on_both_and_comes_back_from_its_package_in_a_new_process(
    model, mixed, precision, tmp_path
):
    module, x = model
    assert {str(t) for t in mixed.targets} == {"simnpu", "cpu"}
    compiled = hp.compile(mixed, precision={"simnpu": precision})
    assert compiled.verification["precision"] == f"simnpu {precision}, cpu fp32"
    y = compiled(x)
    with torch.no_grad():
        assert float((y - module(x)).abs().max()) < (2e-3 if precision == "fp16" else 3e-2)
    package = compiled.save(tmp_path / "m.pt2")
    torch.save(x, tmp_path / "x.pt")
    done = subprocess.run(
        [sys.executable, "-c", ANSWER, package, tmp_path / "x.pt", tmp_path / "y.pt"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), y)


def test_a_package_where_the_device_is_missing_says_so_or_falls_back(
    mixed, model, tmp_path, monkeypatch
):
    module, x = model
    package = hp.compile(mixed, precision={"simnpu": "fp16"}).save(tmp_path / "m.pt2")
    monkeypatch.setenv("SIMNPU_DISABLE", "1")
    with pytest.raises(hp.ProviderUnavailable, match="SIMNPU_DISABLE is set"):
        hp.load(package, registry=hp.Registry())
    with pytest.warns(hp.HardpointWarning, match="falls back to cpu"):
        loaded = hp.load(package, fallback="cpu", registry=hp.Registry())
    with torch.no_grad():
        assert torch.allclose(loaded(x), module(x), atol=1e-5)


def test_one_precision_for_both_is_refused_and_names_the_backend_that_lacks_it(mixed):
    with pytest.raises(hp.CompileError, match="cpu does not compute in fp16"):
        hp.compile(mixed, precision="fp16")


def test_two_devices_take_different_segments(monkeypatch):
    monkeypatch.setenv("SIMNPU_DEVICES", "2")
    registry = hp.Registry()
    module, x = Mlp().eval(), torch.randn(4, 8)

    class Alternate(hp.Partitioner):
        def partition(self, program, targets, objective, costs):
            from hardpoint.planning import compute_nodes

            able = [
                [t.target for t in targets if n.name in t.support.supported]
                for n in compute_nodes(program)
            ]
            return hp.Assignment(
                {n.name: t[i // 2 % len(t)] for i, (n, t) in enumerate(zip(compute_nodes(program), able, strict=True))}
            )  # fmt: skip

    program = hp.capture(module, (x,), registry=registry)
    plan = hp.plan(
        program, targets=["simnpu:0", "simnpu:1", "cpu"], partitioner=Alternate(), registry=registry
    )
    assert len({str(t) for t in plan.targets}) == 3
    compiled = hp.compile(plan, precision={"simnpu": "fp16"}, registry=registry)
    with torch.no_grad():
        assert torch.allclose(compiled(x), module(x), atol=2e-3)


def test_calls_from_many_threads_give_what_one_gives(build):
    module = Mlp()
    module.norm = torch.nn.Identity()
    inputs = [torch.randn(4, 8) for _ in range(24)]
    run = build(module, inputs[0])
    alone = [run(x)[0] for x in inputs]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda x: run(x)[0], inputs))
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert run.counters().calls == 48
    assert run.counters().bytes_in == 48 * 4 * 8 * 4


def test_outputs_stay_and_inputs_are_left_alone(build, function):
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    before = x.clone()
    run = build(function(lambda x: (x, x * 2, x.reshape(4, 3))), x)
    first = run(x)
    kept = [t.clone() for t in first]
    for tensor in run(x):
        tensor.zero_()
    run(y)
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert torch.equal(x, before)
    owners = {t.untyped_storage().data_ptr() for t in (*first, x)}
    assert len(owners) == 4


def test_inputs_with_strides_and_gradients_are_read_right(function, build):
    x = torch.randn(4, 3)
    program = hp.capture(function(lambda x: x * 2).eval(), (x,))
    compiled = hp.compile(hp.plan(program, targets="simnpu"), precision="fp16")
    turned = torch.randn(3, 4).t()
    assert torch.allclose(compiled(turned), turned * 2, rtol=1e-3)
    run = build(function(lambda x: x * 2), x)
    assert torch.allclose(run(x.requires_grad_())[0], x.detach() * 2, rtol=1e-3)


def test_nothing_is_computed_by_pytorch(build):
    """Copies at the border are all that its dispatcher sees."""
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = set()

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(str(function))
            return function(*args, **(kwargs or {}))

    x = torch.randn(4, 8)
    module = Mlp()
    module.norm = torch.nn.Identity()
    run = build(module, x)
    with Record():
        run(x)
    assert seen <= {"aten.detach.default", "aten.lift_fresh.default"}


def test_the_wrong_tensors_are_refused_in_words(build, function):
    run = build(function(torch.add), torch.ones(2, 3), torch.ones(3))
    with pytest.raises(hp.InputError) as caught:
        run(torch.ones(2, 3).half(), torch.ones(4))
    assert str(caught.value).startswith(
        "the program takes float32[2, 3], float32[3], got float16[2, 3], float32[4]"
    )


def test_a_closed_executable_says_so(build, function):
    x = torch.ones(2)
    run = build(function(torch.relu), x)
    run.close()
    run.close()
    with pytest.raises(hp.ProviderError, match="the executable was closed"):
        run(x)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_fork_in_the_middle_of_a_call_does_not_hang_the_child(build, function):
    x = torch.ones(2)
    run = build(function(torch.relu), x)
    with run._turn():  # as another thread holds it while this one forks
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(run(x)[0], x) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_memory_does_not_grow(build, function):
    import tracemalloc

    x = torch.ones(64, 64)
    run = build(function(lambda x: torch.relu(x) + 1), x)
    run(x)
    tracemalloc.start()
    run(x)
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        run(x)
    grown = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    assert grown < 64 * 1024


def test_the_examples_of_the_readme_run(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    (tmp_path / "examples.py").write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, "examples.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
