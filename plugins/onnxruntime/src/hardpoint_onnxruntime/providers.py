"""ONNX Runtime's execution providers, and which of them are here. Light: no torch.

What is not the CPU was never run by us: each is written after its documentation.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hardpoint import Device

CPU = "CPUExecutionProvider"
UNVERIFIED = "unverified on hardware"


def _ANY() -> int:  # noqa: N802 - a constant: whether it has a device only the driver knows
    return 1


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider.

    :param name: ONNX Runtime's. :param prefix: of device ids.
    :param wheel: the distribution that brings it.
    :param options: set always: computing in fp32 means fp32, not TF32 or fp16 in silence.
    :param count: how many devices there are to see, without touching a driver.
    :param torch: of PyTorch's devices, whose memory it can use as it is; ``"cpu"``: it copies.
    :param id_option: name of its option that chooses among devices, or ``""``: it has but one.
    """

    name: str
    prefix: str
    wheel: str
    options: Mapping[str, str] = field(default_factory=dict)
    count: Callable[[], int] = _ANY
    torch: str = "cpu"
    id_option: str = ""


def _nvidia() -> int:
    if sys.platform == "win32":
        return int(Path(os.environ.get("SYSTEMROOT", ""), "System32", "nvcuda.dll").exists())
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _amd() -> int:
    return int(Path("/dev/kfd").exists())


def _on(platform: str) -> Callable[[], int]:
    return lambda: int(sys.platform == platform)


_GPU = "onnxruntime-gpu"
KNOWN: tuple[Provider, ...] = (
    Provider(CPU, "CPU", "onnxruntime"),
    Provider(
        "CUDAExecutionProvider", "CUDA", _GPU, {"use_tf32": "0"}, _nvidia, "cuda", "device_id",
    ),
    Provider(
        "TensorrtExecutionProvider", "TensorRT", _GPU,
        {"trt_fp16_enable": "0", "trt_int8_enable": "0"}, _nvidia, "cuda", "device_id",
    ),
    Provider(
        "NvTensorRTRTXExecutionProvider", "TensorRT-RTX", "onnxruntime-trt-rtx", {}, _nvidia,
        "cuda", "device_id",
    ),
    Provider("ROCMExecutionProvider", "ROCm", "onnxruntime-rocm", {}, _amd, "cuda", "device_id"),
    Provider(
        "MIGraphXExecutionProvider", "MIGraphX", "onnxruntime-migraphx",
        {"migraphx_fp16_enable": "0", "migraphx_int8_enable": "0"}, _amd, "cuda", "device_id",
    ),
    Provider(
        "CoreMLExecutionProvider", "CoreML", "onnxruntime",
        {"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"}, _on("darwin"),
    ),
    Provider(
        "DmlExecutionProvider", "DirectML", "onnxruntime-directml", {}, _on("win32"),
        "cpu", "device_id",
    ),
    Provider(
        "QNNExecutionProvider", "QNN", "onnxruntime-qnn", {"enable_htp_fp16_precision": "0"},
    ),
    Provider(
        "OpenVINOExecutionProvider", "OpenVINO", "onnxruntime-openvino", {"precision": "FP32"},
    ),
    Provider("DnnlExecutionProvider", "DNNL", "onnxruntime"),
    Provider("WebGpuExecutionProvider", "WebGPU", "onnxruntime-webgpu"),
    Provider("CANNExecutionProvider", "CANN", "onnxruntime-cann", {}, _ANY, "cpu", "device_id"),
)  # fmt: skip
# It sends what it is given to a service of another company; it is compiled into every wheel.
NEVER = frozenset({"AzureExecutionProvider"})


def installed() -> bool:
    """Whether some distribution brings the module ``onnxruntime``."""
    return importlib.util.find_spec("onnxruntime") is not None


def torch_has(kind: str) -> bool:
    """Whether the installed PyTorch was built for CUDA (or ROCm), told without importing it."""
    if kind == "cpu":
        return True
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    told = Path(spec.origin).with_name("version.py")
    if not told.is_file():
        return False
    lines = [line.replace(" ", "") for line in told.read_text(encoding="utf-8").splitlines()]
    built = [line for line in lines if line.partition(":")[0] in ("cuda", "hip")]
    return any(not line.endswith("=None") for line in built)


def devices(available: list[str], registered: list[Any]) -> tuple[Device, ...]:
    """The devices of the providers that are here, the CPU first.

    :param available: ``onnxruntime.get_available_providers()``: what the wheel has.
    :param registered: ``onnxruntime.get_ep_devices()``: of plugin providers, too.
    """
    found: list[Device] = []
    for provider in KNOWN:
        if provider.name in available:
            found += [_device(provider, i) for i in range(provider.count())]
    taken: dict[str, int] = {}
    for other in registered:
        name = other.ep_name
        if name in available or name in NEVER:
            continue  # not a plugin's: its devices are above
        index = taken[name] = taken.get(name, -1) + 1
        kind = str(other.device.type).rpartition(".")[2]
        properties = {"provider": name, "plugin": True, "index": index, "verified": False}
        label = f"{name} on {kind} {other.device.vendor} ({UNVERIFIED})"
        found.append(Device(f"{_word(name)}.{index}", label, properties=properties))
    return tuple(found)


def _word(name: str) -> str:
    return "".join(c for c in name.removesuffix("ExecutionProvider") if c.isalnum()) or "EP"


def _device(provider: Provider, index: int) -> Device:
    cpu = provider.name == CPU
    place = "cpu" if not torch_has(provider.torch) else provider.torch
    return Device(
        id=provider.prefix if not provider.id_option else f"{provider.prefix}.{index}",
        name=_cpu_name() if cpu else f"{provider.name} {index} ({UNVERIFIED})",
        torch_device=place if place == "cpu" else f"{place}:{index}",
        properties={"provider": provider.name, "index": index, "verified": cpu},
    )


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine() or "CPU"


def has_vnni() -> bool:
    """Whether the processor adds products of bytes without saturating; where not known, not.

    Without it, eight-bit weights would overflow 16 bits on x86, and seven bits are used.
    """
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return False
    words = set(path.read_text(encoding="utf-8", errors="replace").split())
    return bool(words & {"avx512_vnni", "avx_vnni", "asimddp"})


def provider_of(device: Device) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's name of the provider behind ``device``, and its options."""
    name = str(device.properties["provider"])
    options: dict[str, str] = {}
    for provider in KNOWN:
        if provider.name == name:
            options = dict(provider.options)
            if provider.id_option:
                options[provider.id_option] = str(device.properties["index"])
    return name, options


def notes(available: list[str]) -> tuple[str, ...]:
    """What would run here with another wheel, and what the wheel has and the machine lacks."""
    told = []
    for provider in KNOWN:
        seen = provider.count()
        if provider.name in available and not seen:
            told.append(f"{provider.name} is in the wheel, and no device of it is to be seen")
        if provider.name not in available and seen and provider.count is not _ANY:
            told.append(f"{provider.name} is not in the wheel: {provider.wheel} brings it")
    return tuple(told)
