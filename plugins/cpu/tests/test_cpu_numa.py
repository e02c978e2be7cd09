"""Option ``numa``: threads bound to a node's processors, and a caller who is not."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hardpoint import ArtifactError, CompileOptions, ConfigError, ProviderFailed
from hardpoint_cpu import numa, on_node
from hardpoint_cpu.tuning import Tuning

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system binds no threads to processors"
)


def program():
    """Enough work for PyTorch to share it out."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Tanh()).eval()
    return torch.export.export(model, (torch.ones(256, 512),), strict=False).run_decompositions({})


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A machine with these nodes, by their lists of processors, as Linux writes them."""

    def make(**lists: str) -> None:
        for name, processors in lists.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "cpulist").write_text(processors + "\n")
        monkeypatch.setattr(numa, "NODES", tmp_path)

    return make


def allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def tasks_on(processors: list[int]) -> set[str]:
    """Threads of this process that may run on these alone."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            if sorted(os.sched_getaffinity(int(task.name))) == processors:
                found.add(task.name)
    return found


@pytest.mark.skipif(len(allowed()) < 2, reason="one processor only: it is bound anyway")
@pytest.mark.parametrize("mode", ["eager", "aot"])
def test_calls_run_on_the_node_s_processors_and_the_caller_stays_free(mode, nodes, build):
    last = allowed()[-1]
    nodes(node0=str(allowed()[0]), node1=str(last))
    before, there = allowed(), tasks_on([last])
    made = build(program(), mode=mode, numa=1)
    x = torch.randn(256, 512)
    [found] = made(x)
    torch.testing.assert_close(found, build(program(), mode=mode)(x)[0], rtol=1e-4, atol=1e-3)
    assert tasks_on([last]) - there
    assert allowed() == before
    facts = made.facts()
    assert (facts["numa"], facts["processors"], facts["threads"]) == (1, [last], 1)
    made.close()
    end = time.monotonic() + 10
    while tasks_on([last]) - there:  # OpenMP's end a little later than the thread that had them
        assert time.monotonic() < end
        time.sleep(0.01)


def test_threads_that_a_call_starts_are_bound_as_well(nodes, build):
    nodes(node0=f"{allowed()[0]}")
    bound = [allowed()[0]]
    there = tasks_on(bound)
    made = build(program(), numa=0, threads=3)
    made(torch.randn(256, 512))
    if len(allowed()) > 1:
        assert len(tasks_on(bound) - there) == 3  # it, and two of OpenMP's
    assert made.facts()["threads"] == 3
    made.close()


def test_a_machine_that_tells_of_no_nodes_is_one(tmp_path):
    assert numa.processors(0, ConfigError, tmp_path) == set(allowed())


def test_a_list_of_processors_is_read_as_linux_writes_it(nodes):
    first, last = allowed()[0], allowed()[-1]
    nodes(node0=f"{first}-{last},100000-100002", node3=f"{last}")
    assert numa.processors(0, ConfigError) == set(allowed())
    assert numa.processors(3, ConfigError) == {last}


def test_a_node_that_is_not_there_is_refused_in_words(nodes, build, backend):
    nodes(node0=f"{allowed()[0]}", node1="", node2="100000")  # 1 is memory alone
    with pytest.raises(ConfigError):
        build(program(), numa=1, threads=2)
    with pytest.raises(ConfigError) as caught:
        build(program(), numa=1)
    assert str(caught.value).splitlines() == [
        "nothing can be bound to NUMA node 1",
        f"  provider: backend:cpu (from {caught.value.origin})",
        "  cause: this machine has processors on the nodes 0, 2",
        "  remedy: name one of them",
    ]
    with pytest.raises(ConfigError) as caught:
        build(program(), numa=2)
    assert caught.value.cause == "the calling thread may use none of its processors"
    assert caught.value.remedy == (
        "name another node, or allow it these (taskset, the container's cpuset)"
    )
    device = backend.devices()[0]
    artifact = backend.compile(program(), device, CompileOptions(backend={"numa": 0}))
    moved = replace(artifact, metadata={**artifact.metadata, "numa": 1})
    with pytest.raises(ArtifactError, match="nothing can be bound to NUMA node 1"):
        backend.load(moved, device)
    damaged = replace(artifact, metadata={**artifact.metadata, "numa": -1})
    with pytest.raises(ArtifactError, match="the artifact is to run on NUMA node -1"):
        backend.load(damaged, device)


@pytest.mark.parametrize("value", [-1, "0", True, 1.0, 1 << 20])
def test_what_is_no_node_s_number_is_refused(value, build):
    with pytest.raises(ConfigError) as caught:
        build(program(), numa=value)
    assert caught.value.what == f"option numa is {value!r}"
    assert caught.value.remedy == "give the number of a node, 0 or more"


PLACED = """
import os, sys, threading, torch
from hardpoint import ArtifactError, CompileOptions, ConfigError
from hardpoint_cpu import numa, on_node
for name in ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY"):
    if sys.argv[1] == "forget":
        os.environ.pop(name, None)  # OpenMP has read it
try:
    numa.processors(0, ArtifactError)
except ArtifactError as error:
    print(error.cause)
    print(error.remedy)
    raise SystemExit
last = max(os.sched_getaffinity(0))
worker = on_node.Worker("test", frozenset({last}))
before = set(os.listdir("/proc/self/task"))
def work():
    torch.set_num_threads(2)
    torch.ones(512, 512) @ torch.ones(512, 512)
worker.call(work)
new = set(os.listdir("/proc/self/task")) - before
bound = {frozenset(os.sched_getaffinity(int(task))) for task in new}
print(len(new) > 1, bound == {frozenset({last})})
"""


@pytest.mark.parametrize("keep", ["keep", "forget"])
@pytest.mark.parametrize(
    ("told", "places"),
    [
        ("OMP_PROC_BIND=close", True),
        ("OMP_PLACES=cores", True),
        ("GOMP_CPU_AFFINITY=0-1", True),
        ("OMP_PROC_BIND=false", False),
        ("KMP_AFFINITY=compact", False),  # Intel's OpenMP reads that, and PyTorch's wheel has GNU's
    ],
)
def test_where_openmp_places_its_threads_by_itself_that_is_the_reason(told, places, keep):
    name, value = told.split("=")
    done = subprocess.run(
        [sys.executable, "-c", PLACED, keep], capture_output=True, text=True, timeout=120,
        env={**os.environ, name: value},
    )  # fmt: skip
    said = told if keep == "keep" else "omp_get_proc_bind()"
    refused = (
        f"OpenMP places its threads by itself ({said})\n"
        "start the process without OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, KMP_AFFINITY, or "
        "leave the option numa out"
    )
    assert done.stdout.strip() == (refused if places else "True True"), done.stderr[-2000:]


def test_two_threads_of_a_core_are_one_core(tmp_path, monkeypatch):
    for cpu, siblings in enumerate(["0,2", "1,3", "0,2"]):
        (tmp_path / f"{cpu}").write_text(siblings + "\n")
    monkeypatch.setattr(numa, "_SIBLINGS", f"{tmp_path}/{{}}")
    assert numa.cores(frozenset({0, 1, 2})) == 2
    assert numa.cores(frozenset({2, 9})) == 2  # of 9 the system tells nothing


def test_what_max_autotune_writes_into_its_code_is_the_number_it_runs_on(backend, nodes):
    nodes(node0=f"{allowed()[0]}")
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        options = {"numa": 0, "mode": "inductor", "freezing": True, "max_autotune": True}
        wanted = CompileOptions(backend=options)
        artifact = backend.compile(program(), backend.devices()[0], wanted)
    finally:
        torch.set_num_threads(before)
    assert artifact.metadata["threads"] == 1
    tuning = Tuning.read(artifact.metadata)
    assert tuning.patches()["cpp.threads"] == 1
    assert not tuning.dynamic_threads


class Pointwise(torch.nn.Module):
    def forward(self, x):
        return torch.tanh(x) * 2


@pytest.mark.skipif(len(allowed()) < 2, reason="needs two processors")
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_without_threads_it_takes_as_many_as_the_node_where_it_is_loaded(
    mode, nodes, backend, monkeypatch
):
    first, last = allowed()[0], allowed()[-1]
    x, device = torch.randn(512, 512), backend.devices()[0]
    nodes(node0=f"{first}")
    monkeypatch.setattr(numa, "cores", len)  # each its own
    own = torch.export.export(Pointwise(), (x,), strict=False).run_decompositions({})
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # Inductor would write it into its code
    try:
        wanted = CompileOptions(backend={"numa": 0, "mode": mode})
        artifact = backend.compile(own, device, wanted)
        nodes(node0=f"{first},{last}")
        made = backend.load(artifact, device)
    finally:
        torch.set_num_threads(before)
    there = set(Path("/proc/self/task").iterdir())  # with the one that is bound
    made(x)
    assert len(set(Path("/proc/self/task").iterdir()) - there) == 1  # OpenMP's second
    facts = made.facts()
    assert (facts["threads"], facts["processors"]) == (2, [first, last])
    made.close()


def test_calls_of_several_threads_take_turns_and_are_right(build):
    made, plain = build(program(), numa=0), build(program())
    inputs = [torch.randn(256, 512) for _ in range(8)]
    found, inside = {}, []
    call = made._inner

    def counted(*given):
        inside.append(1)
        most.append(len(inside))
        try:
            time.sleep(0.01)  # long enough for the next to come in, were it let in
            return call(*given)
        finally:
            inside.pop()

    most, made._inner = [], counted
    threads = [
        threading.Thread(target=lambda i=i, x=x: found.update({i: made(x)[0]}))
        for i, x in enumerate(inputs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8
    for i, x in enumerate(inputs):
        assert torch.equal(found[i], plain(x)[0])


def test_a_call_runs_in_its_caller_s_modes(build):
    made, seen = build(program(), numa=0), []

    def tells(*_):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return ()

    result = made(torch.ones(256, 512))[0]
    assert not result.is_inference()
    with torch.inference_mode():
        assert made(torch.ones(256, 512))[0].is_inference()
    made._inner = tells
    for mode in (torch.enable_grad(), torch.no_grad(), torch.inference_mode()):
        with mode:
            made()
    assert seen == [(True, False), (False, False), (False, True)]


def test_after_close_a_call_is_refused_in_words(build):
    made = build(program(), numa=0)
    made.close()
    made.close()
    with pytest.raises(ProviderFailed) as caught:
        made(torch.ones(256, 512))
    assert str(caught.value).splitlines() == [
        "the executable was closed",
        f"  provider: backend:cpu (from {caught.value.origin})",
        "  cause: its thread has ended",
        "  remedy: load the artifact again",
    ]


def test_a_call_from_inside_of_a_call_goes_through(build):
    made = build(program(), numa=0)
    inner, x = made._inner, torch.ones(256, 512)

    class Again:
        def __call__(self, *inputs):
            if not inputs:
                made.close()
                return ()
            made._inner = inner
            found = made(*inputs)
            made._inner = self
            return found

        def close(self):
            closed.append(True)

    want, closed, made._inner = made(x)[0], [], Again()
    found = []
    caller = threading.Thread(target=lambda: found.append(made(x)[0]), daemon=True)
    caller.start()
    caller.join(30)
    assert torch.equal(found[0], want)
    made()
    assert closed == [True]


def test_a_thread_that_the_system_does_not_bind_is_an_error_in_words():
    worker = on_node.Worker("hardpoint-cpu on node 3", frozenset({500}))
    for _ in range(2):
        with pytest.raises(ProviderFailed) as caught:
            worker.call(lambda: None)
        assert str(caught.value).splitlines() == [
            "hardpoint-cpu on node 3: its thread cannot be bound to [500]",
            f"  provider: backend:cpu (from {caught.value.origin})",
            "  cause: OSError: [Errno 22] Invalid argument",
            "  remedy: allow this process these processors, or compile without the option numa",
        ]
    worker.close()


def test_what_is_closed_is_not_in_a_call(build):
    made, order = build(program(), numa=0), []
    inner = made._inner

    class Watched:
        def __call__(self, *inputs):
            order.append("begins")
            started.set()
            time.sleep(0.1)
            order.append("ends")
            return inner(*inputs)

        def close(self):
            order.append("closed")

    started, made._inner = threading.Event(), Watched()
    caller = threading.Thread(target=made, args=(torch.ones(256, 512),))
    caller.start()
    assert started.wait(30)
    made.close()
    caller.join()
    assert order == ["begins", "ends", "closed"]


def test_an_error_of_a_call_reaches_the_caller(build):
    made = build(program(), numa=0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        made(torch.ones(3, 4))
    assert made(torch.ones(256, 512))[0].shape == (256, 512)


FORKED = """
import os, sys, threading, time, torch
from hardpoint import CompileOptions
from hardpoint_cpu import plugin
sys.path.insert(0, sys.argv[1])
from test_cpu_numa import program
backend = plugin.hardpoint_backend_open({})
device = backend.devices()[0]
options = CompileOptions(backend={"numa": 0})
made = backend.load(backend.compile(program(), device, options), device)
shut = backend.load(backend.compile(program(), device, options), device)
shut.close()
x = torch.ones(256, 512)
want = made(x)[0].numpy().tobytes()
child = os.fork()
if not child:
    # No operator of PyTorch in this thread, which came through the fork.
    inner, inside, most, right = made._inner, [], [], []
    def counted(*given):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        try:
            return inner(*given)
        finally:
            inside.pop()
    made._inner = counted
    def call():
        right.append(made(x)[0].numpy().tobytes() == want)
    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        shut(x)
    except Exception as error:
        right.append("was closed" in str(error))
    os._exit(0 if right == [True] * 7 and most == [1] * 6 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_gets_one_thread_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", FORKED, HERE], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0", done.stderr[-2000:]
