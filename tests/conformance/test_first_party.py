"""No correct provider fails: each of ours reaches the highest level of its kind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardpoint.registry.registry import Registry
from hardpoint.testing.check import LEVELS

ROOT = Path(__file__).parents[2]
FIRST_PARTY = {
    "backend:cpu": "plugins/cpu",
    "backend:onnxruntime": "plugins/onnxruntime",
    "backend:cuda": "plugins/cuda",
    "backend:metal": "plugins/metal",
    "backend:rocm": "plugins/rocm",
    "backend:openvino": "plugins/openvino",
    "backend:simnpu": "contrib/simnpu",
    "partitioner:capability": "plugins/partitioners",
    "serializer:checkpoint": "plugins/checkpoint",
    "serializer:dcp": "plugins/dcp",
    "serializer:gguf": "plugins/gguf",
    "serializer:numpy": "plugins/numpy",
    "serializer:onnx": "plugins/onnx",
    "serializer:safetensors": "plugins/safetensors",
    "transport:gloo": "plugins/gloo",
}
# Without the hardware the kit shows that they load, and say what is missing.
NEED_HARDWARE = {"backend:cuda", "backend:metal", "backend:rocm"}

# Two minutes and more with an SDK; `make conformance` runs them, and docs/conformance/ shows them.
LONG = {"claims_some_operator", "claimed_nodes_run_alone"}
SDK = {"backend:onnxruntime", "backend:openvino"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("key", FIRST_PARTY)
def test_the_kit_finds_nothing_wrong(key, tmp_path):
    missing = key in NEED_HARDWARE and not Registry().probe(*key.split(":")).available
    if missing and key != "backend:cuda" and not os.environ.get("HARDPOINT_ALL_MUTANTS"):
        pytest.skip("its hardware is not here: one of three such stands for all")
    settings = ROOT / FIRST_PARTY[key] / "conformance.toml"
    given = ["--settings", str(settings)] if settings.is_file() else []
    whole = key not in SDK or bool(os.environ.get("HARDPOINT_ALL_MUTANTS"))
    if not whole:
        given += ["--checks", ",".join(sorted(_names(key) - LONG))]
    command = [sys.executable, "-m", "hardpoint.cli", "check", key, "--json", *given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    (report,) = json.loads(done.stdout)["reports"]
    wrong = {
        c["name"]: c["reason"] for c in report["checks"] if c["outcome"] in ("failed", "crashed")
    }
    assert not wrong
    assert done.returncode == 0, done.stderr
    assert report["complete"] == whole
    if whole:
        assert report["level"] == LEVELS[report["kind"]][0 if missing else -1]


def _names(key):
    command = [sys.executable, "-m", "hardpoint.cli", "check", key, "--list", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {check["name"] for check in json.loads(done.stdout)["checks"]}


def test_every_provider_of_this_repository_is_checked():
    ours = [r.key for r in Registry().records() if r.dist.startswith("hardpoint-")]
    assert sorted(ours) == sorted(FIRST_PARTY)
