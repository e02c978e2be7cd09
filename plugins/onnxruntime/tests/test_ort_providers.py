"""Providers: which are here, which are not and why, and none that starts on the CPU instead."""

import subprocess
import sys
from importlib.metadata import entry_points
from types import SimpleNamespace

import ort_programs as shared
import pytest
import torch

import hardpoint as hp
from hardpoint import ArtifactError, CompileOptions, ConfigError, Device, ProbeRequest
from hardpoint_onnxruntime import placement, plugin, plugins, providers, session
from hardpoint_onnxruntime.options import HELP, VARIANTS, Options

CUDA = Device("CUDA.0", "a GPU", properties={"provider": "CUDAExecutionProvider", "index": 0})


def test_the_entry_point_is_named_as_the_provider():
    [found] = entry_points(group="hardpoint.backend.v1", name="onnxruntime")
    assert found.load() is plugin


def test_the_cpu_is_the_first_device_and_verified():
    first = plugin.hardpoint_backend_probe(ProbeRequest()).devices[0]
    assert (first.id, first.torch_device) == ("CPU", "cpu")
    assert first.properties["verified"] is True


BARE = """
import sys
from importlib.abc import MetaPathFinder
class No(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "onnxruntime": raise {raises}
sys.meta_path.insert(0, No())
from importlib.util import find_spec
import hardpoint_onnxruntime.providers as providers
providers.installed = lambda: {installed}
import hardpoint as hp
print(hp.Registry().probe("backend", "onnxruntime").reason)
try:
    hp.Registry().open("backend", "onnxruntime")
except hp.HardpointError as error:
    print(type(error).__name__)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize(
    ("installed", "raises", "reason"),
    [
        (False, "ImportError('none')", "no wheel of ONNX Runtime is installed"),
        (True, "ImportError('libcudart.so.12: not found')", "ONNX Runtime is installed and cannot be imported: ImportError: libcudart.so.12: not found"),
    ],
)  # fmt: skip
def test_a_missing_wheel_is_a_reason_and_not_a_fault(installed, raises, reason):
    script = BARE.format(installed=installed, raises=raises)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == f"{reason}\nProviderUnavailable\n", done.stderr


def test_a_provider_without_its_hardware_gives_no_device_and_a_note(monkeypatch):
    have = ["CUDAExecutionProvider", "CPUExecutionProvider", "AzureExecutionProvider"]
    cuda = next(p for p in providers.KNOWN if p.prefix == "CUDA")
    if cuda.count():
        pytest.skip("this machine has a GPU of Nvidia's")
    assert [d.id for d in providers.devices(have, [])] == ["CPU"]
    assert (
        "CUDAExecutionProvider is in the wheel, and no device of it is to be seen"
        in providers.notes(have)
    )


def test_a_plugin_provider_is_found_by_its_distribution_and_a_broken_one_is_a_reason(
    tmp_path, monkeypatch
):
    for name in ("onnxruntime_ep_acme", "OnnxRuntime_EP_Zenith", "onnxruntime_epsilon"):
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
    (tmp_path / "onnxruntime_ep_folder").mkdir()
    (tmp_path / "onnxruntime_ep_acme.py").write_text("def get_library_path(): return '/no/such.so'")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "not_there"), *sys.path])
    acme, zenith = plugins.register.__wrapped__()
    assert acme.startswith("the plugin onnxruntime_ep_acme was not taken: ")
    assert "/no/such.so" in acme
    assert zenith == (
        "the plugin onnxruntime_ep_zenith was not taken: "
        "ModuleNotFoundError: No module named 'onnxruntime_ep_zenith'"
    )


def test_devices_of_plugin_providers_are_listed_as_unverified():
    npu = SimpleNamespace(
        ep_name="AcmeExecutionProvider", device=SimpleNamespace(type="Kind.NPU", vendor="Acme")
    )
    cpu, first, second = providers.devices(["CPUExecutionProvider"], [npu, npu])
    assert (cpu.id, first.id, second.id) == ("CPU", "Acme.0", "Acme.1")
    assert first.name == "AcmeExecutionProvider on NPU Acme (unverified on hardware)"
    assert second.properties["index"] == 1


def test_no_provider_computes_in_less_than_float32_by_itself():
    by_name = {p.name: dict(p.options) for p in providers.KNOWN}
    assert by_name["CUDAExecutionProvider"] == {"use_tf32": "0"}
    assert by_name["TensorrtExecutionProvider"]["trt_fp16_enable"] == "0"
    assert by_name["QNNExecutionProvider"] == {"enable_htp_fp16_precision": "0"}


def test_a_provider_that_does_not_start_is_an_error_and_not_the_cpu(backend, cpu):
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this wheel has the provider")
    made = backend.compile(shared.exported(torch.relu, torch.randn(3)), cpu, CompileOptions())
    settings = session.session_options(Options(), 1, "CUDAExecutionProvider")
    with pytest.raises(RuntimeError, match="is not in the installed wheel"):
        session.open_session(made.files["model.onnx"], settings, CUDA)


def test_a_session_that_fell_back_is_refused(monkeypatch):
    class Fell:
        def get_providers(self):
            return ["CPUExecutionProvider"]

        def disable_fallback(self):
            pass

    monkeypatch.setattr(session, "_on", lambda *_: Fell())
    with pytest.raises(RuntimeError) as refused:
        session.open_session(b"", None, CUDA)
    assert str(refused.value) == (
        "CUDAExecutionProvider did not start; ONNX Runtime fell back to CPUExecutionProvider"
    )


def test_nodes_on_the_cpu_are_refused_unless_allowed():
    where = {
        "CUDAExecutionProvider": [("a", "Conv")],
        "CPUExecutionProvider": [("b", "NonZero"), ("c", "Unique")],
    }
    placement.refuse_elsewhere(where, "CUDAExecutionProvider", Options(cpu_nodes=True))
    with pytest.raises(ArtifactError) as refused:
        placement.refuse_elsewhere(where, "CUDAExecutionProvider", Options())
    assert refused.value.what == "2 nodes of the segment would not run on CUDAExecutionProvider"
    assert refused.value.cause == (
        "ONNX Runtime put them on CPUExecutionProvider: b (NonZero), c (Unique)"
    )


def test_the_arithmetic_of_an_accelerator_is_not_guessed():
    nodes = [("a", "Conv")]
    assert placement.precision_of({providers.CPU: nodes}, "fp32") == "fp32"
    assert placement.precision_of({"CUDAExecutionProvider": nodes}, "fp32") == ""
    quantized = {"CUDAExecutionProvider": [("a", "QLinearConv")]}
    assert placement.precision_of(quantized, "fp32") == "int8"


def test_a_device_of_a_plugin_provider_is_opened_by_its_own_object(backend, cpu):
    # ONNX Runtime lists the CPU among these objects: the one way to try it without such hardware.
    made = backend.compile(shared.exported(torch.relu, torch.randn(3)), cpu, CompileOptions())
    device = Device("x", "x", properties={"provider": session.CPU, "plugin": True, "index": 0})
    settings = session.session_options(Options(), 1, session.CPU)
    opened = session.open_session(made.files["model.onnx"], settings, device)
    assert opened.get_providers() == [session.CPU]


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        (
            {"thread": 2},
            "the onnxruntime backend has no option 'thread'",
            "did you mean 'threads'?",
        ),
        ({"threads": -1}, "option threads is -1", "give a whole number from 0 to 1024"),
        ({"spinning": 1}, "option spinning is 1", "give true or false"),
        ({"optimization": "al"}, "option optimization is 'al'", "did you mean 'all'?"),
        ({"block": 33}, "option block is 33", "choose one of 16, 32, 64, 128, 256"),
    ],
)
def test_a_wrong_option_is_named(options, what, remedy):
    with pytest.raises(ConfigError) as refused:
        Options.parse(options)
    assert refused.value.what == what
    assert remedy in refused.value.remedy


def test_every_option_is_documented_and_every_variant_is_one():
    assert list(HELP) == list(Options().to_json())
    for options in VARIANTS.values():
        Options.parse(options)


def test_there_is_no_configuration(registry):
    with pytest.raises(ConfigError, match="has no configuration 'providers'"):
        registry.open("backend", "onnxruntime", {"providers": []})


def test_a_device_that_is_not_here_is_named(registry):
    program = hp.capture(torch.nn.ReLU().eval(), (torch.randn(2),), registry=registry)
    with pytest.raises(hp.HardpointError, match=r"target onnxruntime:CUDA\.7"):
        hp.plan(program, targets=["onnxruntime:CUDA.7"], registry=registry)
