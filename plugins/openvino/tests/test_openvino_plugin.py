"""What the host sees of the plugin: info, probe, devices, options, what it leaves in the process."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, entry_points

import pytest
import torch

from hardpoint import ConfigError, ProbeRequest, ProviderUnavailable
from hardpoint_openvino import plugin
from hardpoint_openvino.options import Options

LIGHT = """
import sys
from hardpoint import ProbeRequest
from hardpoint_openvino import plugin
plugin.hardpoint_backend_info()
probe = plugin.hardpoint_backend_probe(ProbeRequest())
assert not {"torch", "openvino", "numpy"} & set(sys.modules)
print(probe.available, probe.devices[0].id)
"""
GUEST = """
import multiprocessing, sys, threading
from hardpoint_openvino import plugin
plugin.hardpoint_backend_open({}).devices()
assert "openvino_telemetry" not in sys.modules
assert threading.enumerate() == [threading.main_thread()], threading.enumerate()
assert multiprocessing.get_start_method(allow_none=True) is None
import importlib.util
importlib.util.find_spec("openvino_telemetry")  # a module hidden for good would raise
"""


def child(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_the_entry_point_is_named_as_the_provider():
    [found] = entry_points(group="hardpoint.backend.v1", name="openvino")
    assert found.load() is plugin


def test_info_and_a_shallow_probe_import_neither_torch_nor_openvino():
    done = child(LIGHT)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True CPU\n"


def test_openvino_is_imported_without_its_reporter_and_the_thread_that_it_starts():
    done = child(GUEST)
    assert done.returncode == 0, done.stderr


def test_a_deep_probe_names_the_devices_that_openvino_finds():
    probe = plugin.hardpoint_backend_probe(ProbeRequest(deep=True))
    assert probe.available
    assert probe.devices[0].id == "CPU"
    assert all(device.torch_device == "cpu" for device in probe.devices)
    others = [device.id for device in probe.devices if not device.id.startswith("CPU")]
    assert bool(others) == any("unverified on hardware" in note for note in probe.notes)


def test_without_openvino_the_probe_and_open_say_how_to_get_it(monkeypatch):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(plugin, "version", missing)
    probe = plugin.hardpoint_backend_probe(ProbeRequest())
    assert (probe.available, probe.reason, probe.remedy) == (
        False, "the package openvino is not installed", "pip install openvino",
    )  # fmt: skip
    with pytest.raises(ProviderUnavailable, match="the package openvino is not installed"):
        plugin.hardpoint_backend_open({})


def test_the_device_tells_its_version_and_arithmetic(device):
    assert device.id == "CPU"
    assert device.properties["openvino"]
    assert "FP32" in device.properties["computes_in"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"thread": 2}, ["the openvino backend has no option 'thread'", "did you mean 'threads'?"]),
        ({"hint": "speed"}, ["option hint is 'speed'", "known: latency, throughput"]),
        ({"threads": 0}, ["option threads is 0", "give a whole number from 1 on"]),
        ({"streams": True}, ["option streams is True", "give a whole number from 1 on"]),
        ({"blob": "yes"}, ["option blob is 'yes'", "give true or false"]),
        ({"model_type": "transform"}, ["did you mean 'transformer'?"]),
        ({"floats": "fp8"}, ["option floats is 'fp8'", "known: bf16, fp16, fp32"]),
    ],
)
def test_a_wrong_option_is_explained(given, words):
    with pytest.raises(ConfigError) as caught:
        Options.parse(given)
    for part in [*words, "provider: backend:openvino (from hardpoint-openvino"]:
        assert part in str(caught.value)


def test_every_declared_option_exists():
    assert set(plugin.hardpoint_backend_info().options) == set(Options.__slots__)


def test_every_variant_is_made_of_options_that_exist():
    for options in plugin.hardpoint_backend_info().variants.values():
        parsed = Options.parse(options)
        assert {name: getattr(parsed, name) for name in options} == dict(options)


@pytest.mark.parametrize(
    ("option", "precision", "where"),
    [
        ({"floats": "bf16"}, "fp32", "ask for int8 or int8w or int4w"),
        ({"dynamic_quantization": 32}, "int8", "ask for int8w or int4w"),
        ({"group_size": 32}, "int8w", "ask for int4w"),
        ({"fold": False}, "int8", "ask for fp32 or bf16 or fp16"),
    ],
)
def test_an_option_without_a_meaning_is_refused(option, precision, where, export, build):
    with pytest.raises(ConfigError) as caught:
        build(export(torch.relu, torch.ones(2)), precision, **option)
    assert f"option {next(iter(option))} has no meaning in {precision}" in str(caught.value)
    assert where in str(caught.value)


def test_an_option_that_the_device_has_no_setting_for_is_refused():
    with pytest.raises(ConfigError, match="the device has no setting ENABLE_CPU_PINNING"):
        Options(pinning=True).settings(
            "fp32", frozenset({"INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT"})
        )


def test_configuration_is_refused_by_name():
    with pytest.raises(ConfigError, match="has no configuration 'device'"):
        plugin.hardpoint_backend_open({"device": "CPU"})


def test_threads_and_streams_are_what_was_asked_for(export, build):
    program = export(torch.nn.Linear(8, 8), torch.randn(2, 8))
    facts = build(program, threads=1, hint="throughput", streams=1).facts()
    assert (facts["threads"], facts["streams"]) == (1, 1)
    assert facts["performance_hint"] == "THROUGHPUT"
    assert build(program).facts()["streams"] == 1
