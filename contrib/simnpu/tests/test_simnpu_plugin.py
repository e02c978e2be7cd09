"""What the host sees of the plugin: info, probe, configuration, devices, imports."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import hardpoint as hp
from hardpoint import CompileError, CompileOptions, ConfigError, Device, ProbeRequest
from hardpoint_contrib_simnpu import plugin
from hardpoint_contrib_simnpu.options import Settings

SOURCES = sorted(Path(plugin.__file__).parent.glob("*.py"))
LIGHT = """
import sys
from hardpoint import ProbeRequest
from hardpoint_contrib_simnpu import plugin
info = plugin.hardpoint_backend_info()
probe = plugin.hardpoint_backend_probe(ProbeRequest(deep=True))
assert not {"torch", "numpy"} & sys.modules.keys()
print(probe.available, [d.id for d in probe.devices], probe.notes, probe.reason, probe.remedy)
"""


def child(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_entry_point_is_named_as_the_provider():
    [found] = entry_points(group="hardpoint.backend.v1", name="simnpu")
    assert found.load() is plugin


def test_info_and_probe_import_neither_torch_nor_numpy():
    assert child(LIGHT) == "True ['0'] ('simulated',)  \n"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.name)
def test_it_uses_only_the_public_api(path):
    """As a vendor outside of this repository would: its folder is a template."""
    allowed = {"hardpoint", "hardpoint.planning"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = {str(node.module)}
            if node.module == "hardpoint":
                assert {alias.name for alias in node.names} <= set(hp.__all__)
            if node.module == "hardpoint.planning":
                assert {alias.name for alias in node.names} <= {"compute_nodes", "is_view"}
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        else:
            continue
        ours = {n for n in names if n.split(".")[0] == "hardpoint"}
        assert ours <= allowed, f"{path.name} imports {ours - allowed}"
        roots = {n.split(".")[0] for n in names} - {"hardpoint", "hardpoint_contrib_simnpu"}
        assert roots <= {*sys.stdlib_module_names, "torch", "numpy"}


def test_modules_stay_small():
    assert all(len(path.read_text().splitlines()) < 300 for path in SOURCES)


def test_switched_off_it_is_unavailable_and_says_why():
    assert child(LIGHT, SIMNPU_DISABLE="1") == (
        "False [] () the simulated device is switched off: SIMNPU_DISABLE is set "
        "unset SIMNPU_DISABLE\n"
    )
    assert child(LIGHT, SIMNPU_DISABLE="0").startswith("True")


def test_a_target_that_is_switched_off_is_refused_with_the_reason(monkeypatch, function):
    monkeypatch.setenv("SIMNPU_DISABLE", "1")
    program = hp.capture(function(torch.relu).eval(), (torch.randn(3),), registry=hp.Registry())
    with pytest.raises(hp.ProviderUnavailable) as caught:
        hp.plan(program, targets=["simnpu", "cpu"], registry=hp.Registry())
    assert str(caught.value).splitlines() == [
        "target simnpu is not available here",
        "  provider: backend:simnpu (from hardpoint-contrib-simnpu 0.1.0)",
        "  cause: the simulated device is switched off: SIMNPU_DISABLE is set",
        "  remedy: unset SIMNPU_DISABLE",
    ]


def test_the_environment_sets_what_the_configuration_leaves_out(monkeypatch, opened):
    monkeypatch.setenv("SIMNPU_DEVICES", "3")
    monkeypatch.setenv("SIMNPU_DRAM_MIB", "16")
    probe = plugin.hardpoint_backend_probe(ProbeRequest())
    assert [(d.id, d.memory) for d in probe.devices] == [(i, 16 * 2**20) for i in "012"]
    assert [d.memory for d in opened({"devices": 1}).devices()] == [16 * 2**20]


def test_a_wrong_environment_makes_the_probe_say_so_and_not_raise(monkeypatch, opened):
    monkeypatch.setenv("SIMNPU_DEVICES", "many")
    probe = plugin.hardpoint_backend_probe(ProbeRequest())
    assert (probe.available, probe.reason) == (False, "SIMNPU_DEVICES is 'many'")
    assert probe.remedy == "give a whole number from 1 to 4"
    with pytest.raises(ConfigError, match="SIMNPU_DEVICES is 'many'"):
        opened({})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"device": 2}, ["has no configuration 'device'", "did you mean 'devices'?"]),
        ({"dram_mb": 2}, ["has no configuration 'dram_mb'", "did you mean 'dram_mib'?"]),
        ({"devices": 5}, ["configuration devices is 5", "give a whole number from 1 to 4"]),
        ({"devices": True}, ["configuration devices is True"]),
        ({"devices": "2"}, ["configuration devices is '2'"]),
        ({"dram_mib": 0}, ["configuration dram_mib is 0", "from 1 to 4096"]),
        ({"dram_mib": 1.5}, ["configuration dram_mib is 1.5"]),
    ],
)
def test_a_wrong_configuration_is_explained(opened, config, words):
    with pytest.raises(ConfigError) as caught:
        opened(config)
    provider = "provider: backend:simnpu (from hardpoint-contrib-simnpu"
    for part in [*words, provider]:
        assert part in str(caught.value)


def test_the_devices_state_their_limits(opened):
    devices = opened({"devices": 4, "dram_mib": 8}).devices()
    assert [d.id for d in devices] == ["0", "1", "2", "3"]
    assert devices[3].name == "Simulated NPU A1 #3"
    assert devices[0].memory == 8 * 2**20
    assert devices[0].torch_device == "cpu"
    assert devices[0].properties["scratchpad_bytes"] == 4 * 2**20
    assert "infinity" in str(devices[0].properties["fp16_overflow"])


def test_info_declares_what_is_true():
    info = plugin.hardpoint_backend_info()
    assert info.precisions == ("fp16", "int8")
    assert not info.strided_inputs
    assert not info.cpu_kernels
    assert not info.options
    assert Settings.parse({}).devices == 1


@pytest.mark.parametrize(
    ("options", "device", "error", "words"),
    [
        ({"precision": "fp32"}, "0", CompileError, "the simnpu backend does not compute in fp32"),
        ({"precision": "fp16"}, "7", CompileError, "the simnpu backend has no device '7'"),
        (
            {"precision": "fp16", "backend": {"mode": "fast"}}, "0",
            ConfigError, "the simnpu backend has no option 'mode'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_compiled_is_explained(
    backend, export, function, options, device, error, words
):
    program = export(function(torch.relu), torch.randn(3))
    with pytest.raises(error) as caught:
        backend.compile(program, Device(device, "x"), CompileOptions(**options))
    assert str(caught.value).startswith(words)
    assert caught.value.provider == "backend:simnpu"
    assert caught.value.remedy
