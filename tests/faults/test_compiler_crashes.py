"""Compiling in a child process: a crash or a hang of a vendor's compiler is an error here."""

import os
import subprocess
import sys

import pytest
import torch

import hardpoint as hp
from fakes.dists import FakeSite

# A backend that runs nothing but compiles like a bad day: what it does is its option.
CRASHING = """
import os, time
from hardpoint import (
    Artifact, ArtifactError, Backend, BackendInfo, CompileError, Device, Probe, Support, hookimpl
)

class Bad(Backend):
    def devices(self):
        return [Device("0", "bad day")]
    def support(self, program, device):
        from hardpoint.planning import compute_nodes
        return Support(frozenset(n.name for n in compute_nodes(program)))
    def compile(self, program, device, options):
        how = options.backend["how"]
        if how == "abort":
            os.abort()
        if how == "exit":
            os._exit(7)
        if how == "hang":
            time.sleep(600)
        if how == "refuse":
            raise CompileError("this chip has no adders", remedy="use another")
        raise RuntimeError("the tiler lost its tiles")
    def load(self, artifact, device):
        raise ArtifactError("never reached")

@hookimpl
def hardpoint_backend_info():
    return BackendInfo(
        requires_api=(1, 0), summary="bad", precisions=("fp32",), options={"how": "what happens"}
    )

@hookimpl
def hardpoint_backend_probe(request):
    return Probe.ready(Device("0", "bad day"))

@hookimpl
def hardpoint_backend_open(config):
    return Bad()
"""

COMPILE = """
import sys, torch, hardpoint as hp
program = hp.capture(torch.nn.Linear(2, 2).eval(), (torch.randn(3, 2),))
try:
    hp.compile(hp.plan(program, targets="bad"), options={"bad": {"how": sys.argv[1]}},
               isolate=True, timeout=float(sys.argv[2]))
except hp.HardpointError as error:
    print(type(error).__name__); print(error)
"""


@pytest.fixture(scope="module")
def program():
    return hp.capture(torch.nn.Linear(2, 2).eval(), (torch.randn(3, 2),))


def test_an_isolated_compilation_gives_the_same_model(program):
    plan = hp.plan(program, targets="cpu")
    isolated = hp.compile(plan, isolate=True, timeout=300)
    x = torch.randn(3, 2)
    assert torch.equal(isolated(x), hp.compile(plan)(x))


@pytest.mark.parametrize(
    ("how", "seconds", "kind", "says"),
    [
        ("abort", 300, "CompileError", ["ended its process", "killed by SIGABRT"]),
        ("exit", 300, "CompileError", ["ended its process", "exit status 7"]),
        ("hang", 8, "CompileError", ["took more than 8 s"]),
        ("refuse", 300, "CompileError", ["this chip has no adders", "use another"]),
        ("raise", 300, "CompileError", ["RuntimeError: the tiler lost its tiles"]),
    ],
)
def test_what_goes_wrong_in_the_child_is_one_error_here(tmp_path, how, seconds, kind, says):
    site = FakeSite(tmp_path / "site")
    site.add_backend("bad", CRASHING)
    done = site.run("-c", COMPILE, how, str(seconds), timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == kind
    for words in [*says, "backend:bad (from acme-bad 1.0)"]:
        assert words in done.stdout


def test_a_backend_of_this_process_alone_cannot_be_isolated(program):
    import hardpoint_cpu.plugin

    registry = hp.Registry()
    registry.add("backend", "mine", hardpoint_cpu.plugin)
    plan = hp.plan(program, targets="mine", registry=registry)
    with pytest.raises(hp.CompileError, match="was added in this process"):
        hp.compile(plan, isolate=True, registry=registry)


def test_nothing_is_left_in_the_temporary_folder(tmp_path):
    code = (
        "import torch, hardpoint as hp\n"
        "p = hp.capture(torch.nn.Linear(2, 2).eval(), (torch.randn(3, 2),))\n"
        "hp.compile(hp.plan(p, targets='cpu'), isolate=True)(torch.randn(3, 2))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("hardpoint-*"))
