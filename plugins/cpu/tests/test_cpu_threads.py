"""Threads: a number for one executable's calls alone; and children that do not hang."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hardpoint import ArtifactError, CompileOptions
from hardpoint_cpu import threads
from hardpoint_cpu.tuning import TUNING, Tuning

HERE = str(Path(__file__).parent)


class Wide(torch.nn.Module):
    """Enough work for PyTorch to share it out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(512, 512)

    def forward(self, x):
        return torch.tanh(self.layer(x)).sum(1)


def program():
    model = Wide().eval()
    return torch.export.export(model, (torch.ones(256, 512),), strict=False).run_decompositions({})


def test_the_number_holds_inside_a_call_and_nowhere_else():
    before, seen = torch.get_num_threads(), {}
    with threads.limited(before + 3):
        seen["inside"] = torch.get_num_threads()
        other = threading.Thread(target=lambda: seen.update(other=torch.get_num_threads()))
        other.start()
        other.join()
    assert seen == {"inside": before + 3, "other": before}
    assert torch.get_num_threads() == before


def test_an_error_puts_the_number_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads.limited(before + 1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_facts_tell_the_number_of_the_option(build):
    assert build(program(), threads=1).facts()["threads"] == 1
    assert build(program()).facts()["threads"] == torch.get_num_threads()


COUNTS = """
import os, sys, torch
from hardpoint import CompileOptions
from hardpoint_cpu import plugin
sys.path.insert(0, sys.argv[1])
from test_cpu_threads import program
torch.set_num_threads(3)
backend = plugin.hardpoint_backend_open({})
device = backend.devices()[0]
made = program()
def opened(**options):
    return backend.load(backend.compile(made, device, CompileOptions(backend=options)), device)
few, many, x = opened(threads=1), opened(), torch.ones(256, 512)
# Exporting has made threads already; a thread of its own has none yet.
def count(executable):
    import threading
    found = []
    def work():
        before = set(os.listdir("/proc/self/task"))
        executable(x)
        found.append(len(set(os.listdir("/proc/self/task")) - before))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return found[0]
print(count(few), count(many))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc")
def test_one_thread_means_that_no_other_is_started():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", COUNTS, HERE],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "2"]


FORKS = """
import os, select, signal, sys, torch
from hardpoint import CompileOptions
from hardpoint_cpu import plugin
sys.path.insert(0, sys.argv[1])
from test_cpu_threads import program
torch.set_num_threads(2)
backend = plugin.hardpoint_backend_open({})
device = backend.devices()[0]
made = program()
options = CompileOptions(backend={"mode": sys.argv[2]})
artifact = backend.compile(made, device, options)
executable = backend.load(artifact, device)
x = torch.ones(256, 512)
wanted = executable(x)[0].tolist()
receiver, sender = os.pipe()
child = os.fork()
if child == 0:
    if sys.argv[3] == "ours":
        found = executable(x)[0].tolist() == wanted
        found &= backend.load(artifact, device)(x)[0].tolist() == wanted
        os.write(sender, b"right" if found else b"wrong")
    else:
        torch.nn.functional.linear(x, x)
        os.write(sender, b"alive")
    os._exit(0)
os.close(sender)
answered = select.select([receiver], [], [], float(sys.argv[4]))[0]
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(os.read(receiver, 9).decode() if answered else "hung")
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("mode", ["eager", "inductor", "aot"])
def test_a_forked_child_computes_where_pytorch_itself_would_hang(mode):
    def fork(whose: str, patience: int) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKS, HERE, mode, whose,
             str(patience)],
            capture_output=True, text=True, timeout=400,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert fork("ours", 200) == "right"
    if mode == "eager":
        assert fork("PyTorch's", 5) == "hung"  # else there is nothing to guard against any more


@pytest.mark.parametrize("number", [0, -1, True, "2", 10**9])
def test_an_artifact_with_another_number_of_threads_is_refused(number, backend):
    device = backend.devices()[0]
    made = backend.compile(program(), device, CompileOptions(backend={"threads": 1}))
    wrong = replace(made, metadata={**made.metadata, "threads": number})
    with pytest.raises(ArtifactError, match=f"the artifact is to compute on {number!r} threads"):
        backend.load(wrong, device)
    with pytest.raises(ArtifactError, match="does not say how it is to be compiled"):
        Tuning.read({TUNING: {**Tuning().to_json(), "threads": number}})
