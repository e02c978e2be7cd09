"""The kit on each provider of this repository, as its own tests run it.

Of a provider that has passed this kit as it is, a commit runs some checks: see ``passed.py``.
"""

import json
import subprocess
import sys

import pytest

import passed
from conformance_reports import settings_of
from hardpoint.registry.registry import Registry
from hardpoint.testing.check import LEVELS
from hardpoint.testing.suites import checks_of_kind
from harness import whole_kit

BACKENDS = ("backend:cpu", "backend:cuda", "backend:metal", "backend:rocm", "backend:simnpu")
SDKS = ("backend:onnxruntime", "backend:openvino")
OTHERS = (
    "partitioner:capability",
    "serializer:checkpoint",
    "serializer:dcp",
    "serializer:gguf",
    "serializer:numpy",
    "serializer:onnx",
    "serializer:safetensors",
    "transport:gloo",
)
FIRST_PARTY = (*BACKENDS, *SDKS, *OTHERS)
# Without the hardware the kit shows that they load, and say what is missing.
NEED_HARDWARE = {"backend:cuda", "backend:metal", "backend:rocm"}
# Minutes each with models and operators: `make conformance` runs those, and docs/conformance/ shows
# them; the checks of single properties are run at every commit.
PARTLY = {*SDKS, "backend:simnpu"}
LONG = (
    "answers_for_every_node",
    "no_silent_cpu_fallback",
    "results_are_on_its_device",
    "model_",
    "parts_",
    "claimed_nodes_run_alone",
    "claimed_operators_compile",
    "claims_some_operator",
    "operators_are_right",
)


def check(key, folder):
    """Run the kit on ``key``: nothing fails, and it reaches the highest level of its kind."""
    everything = whole_kit()
    registry, named = Registry(), key.split(":")
    missing = key in NEED_HARDWARE and not registry.probe(*named).available
    if missing and key != "backend:cuda" and not everything:
        pytest.skip("its hardware is not here: one of three such stands for all")
    given = settings_of(registry.record(*named).dist)
    names = checks = [check.name for check in checks_of_kind(named[0])]
    if not everything:
        if key in PARTLY:
            checks = [name for name in names if not name.startswith(LONG)]
        checks = passed.due(key, checks)
    whole = checks == names
    if not whole:
        given += ["--checks", ",".join(checks)]
    done = _run(key, folder, "--json", *given)
    report = json.loads(done.stdout)["reports"][0]
    wrong = {
        c["name"]: c["reason"] for c in report["checks"] if c["outcome"] in ("failed", "crashed")
    }
    assert not wrong
    assert done.returncode == 0, done.stderr
    assert report["complete"] == whole
    if whole:
        assert report["level"] == LEVELS[report["kind"]][0 if missing else -1]


def _run(key, folder, *options):
    command = [sys.executable, "-m", "hardpoint.cli", "check", key, *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
