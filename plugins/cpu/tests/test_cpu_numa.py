"""Option ``numa``: threads bound to a node's cores, and a caller who is not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hardpoint import ArtifactError, CompileOptions, ConfigError
from hardpoint_cpu import numa

HERE = str(Path(__file__).parent)
pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system binds no threads to cores"
)


def program():
    """Enough work for PyTorch to share it out."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.Tanh()).eval()
    return torch.export.export(model, (torch.ones(256, 512),), strict=False).run_decompositions({})


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    """A machine with these nodes, by their lists of cores, as Linux writes them."""

    def make(**lists: str) -> None:
        for name, cores in lists.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "cpulist").write_text(cores + "\n")
        monkeypatch.setattr(numa, "NODES", tmp_path)

    return make


def allowed() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def tasks_on(cores: list[int]) -> set[str]:
    """Threads of this process that may run on these cores alone."""
    own = Path("/proc/self/task")
    return {t.name for t in own.iterdir() if sorted(os.sched_getaffinity(int(t.name))) == cores}


@pytest.mark.skipif(len(allowed()) < 2, reason="one core only: it is bound anyway")
@pytest.mark.parametrize("mode", ["eager", "aot"])
def test_calls_run_on_the_node_s_cores_and_the_caller_stays_free(mode, nodes, build):
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
    assert (facts["numa"], facts["cores"], facts["threads"]) == (1, [last], 1)
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
    assert numa.cores(0, ConfigError, tmp_path) == set(allowed())


def test_a_list_of_cores_is_read_as_linux_writes_it(nodes):
    first, last = allowed()[0], allowed()[-1]
    nodes(node0=f"{first}-{last},100000-100002", node3=f"{last}")
    assert numa.cores(0, ConfigError) == set(allowed())
    assert numa.cores(3, ConfigError) == {last}


def test_a_node_that_is_not_there_is_refused_in_words(nodes, build, backend):
    nodes(node0=f"{allowed()[0]}", node2="100000")
    with pytest.raises(ConfigError) as caught:
        build(program(), numa=1)
    assert str(caught.value).splitlines() == [
        "nothing can be bound to NUMA node 1",
        f"  provider: backend:cpu (from {caught.value.origin})",
        "  cause: this machine has the nodes 0, 2",
        "  remedy: name one of them",
    ]
    with pytest.raises(ConfigError) as caught:
        build(program(), numa=2)
    assert caught.value.cause == "this process may use none of its cores"
    assert caught.value.remedy == "name another node, or allow it the cores"
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


def test_calls_of_several_threads_take_turns_and_are_right(build):
    made, plain = build(program(), numa=0), build(program())
    inputs = [torch.randn(256, 512) for _ in range(8)]
    found = {}
    threads = [
        threading.Thread(target=lambda i=i, x=x: found.update({i: made(x)[0]}))
        for i, x in enumerate(inputs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, x in enumerate(inputs):
        assert torch.equal(found[i], plain(x)[0])


def test_an_error_of_a_call_reaches_the_caller(build):
    made = build(program(), numa=0)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        made(torch.ones(3, 4))
    assert made(torch.ones(256, 512))[0].shape == (256, 512)


FORKED = """
import os, sys, torch
from hardpoint import CompileOptions
from hardpoint_cpu import plugin
sys.path.insert(0, sys.argv[1])
from test_cpu_numa import program
backend = plugin.hardpoint_backend_open({})
device = backend.devices()[0]
options = CompileOptions(backend={"numa": 0})
made = backend.load(backend.compile(program(), device, options), device)
x = torch.ones(256, 512)
want = made(x)[0].numpy().tobytes()
child = os.fork()
if not child:
    # No operator of PyTorch in this thread, which came through the fork.
    os._exit(0 if made(x)[0].numpy().tobytes() == want else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_gets_a_thread_of_its_own():
    done = subprocess.run(
        [sys.executable, "-c", FORKED, HERE], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0", done.stderr[-2000:]
