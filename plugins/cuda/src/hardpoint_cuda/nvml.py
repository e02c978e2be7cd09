"""NVIDIA's management library, asked directly: it knows the devices and starts no CUDA.

A process that has started CUDA cannot be forked any more; a probe must not do that to its host.
"""

from __future__ import annotations

import ctypes
import os
import sys
from dataclasses import dataclass

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_TEXT = 96  # NVML_DEVICE_NAME_V2_BUFFER_SIZE; the driver's version needs 80


class NvmlError(Exception):
    """NVML did not answer; the text says why."""


@dataclass(frozen=True, slots=True)
class NvmlDevice:
    """One physical device.

    :param memory: bytes. :param capability: (major, minor).
    """

    name: str
    memory: int
    capability: tuple[int, int]


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def listing() -> tuple[str, list[NvmlDevice]]:
    """The driver's version, and the physical devices in the order of their PCI addresses.

    :raises NvmlError: there is no driver, or it does not answer.
    """
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NvmlError(f"NVIDIA's driver is not installed ({error})") from None
    _call(library, "nvmlInit_v2")
    try:
        driver = ctypes.create_string_buffer(_TEXT)
        _call(library, "nvmlSystemGetDriverVersion", driver, _TEXT)
        count = ctypes.c_uint()
        _call(library, "nvmlDeviceGetCount_v2", ctypes.byref(count))
        return driver.value.decode(), [_device(library, i) for i in range(count.value)]
    finally:
        library.nvmlShutdown()


def has_cuda() -> bool:
    """Whether the driver's CUDA library is here. It is opened, not started."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _device(library: ctypes.CDLL, index: int) -> NvmlDevice:
    handle, memory = ctypes.c_void_p(), _Memory()
    name = ctypes.create_string_buffer(_TEXT)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call(library, "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
    _call(library, "nvmlDeviceGetName", handle, name, ctypes.c_uint(_TEXT))
    _call(library, "nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    _call(
        library, "nvmlDeviceGetCudaComputeCapability", handle,
        ctypes.byref(major), ctypes.byref(minor),
    )  # fmt: skip
    return NvmlDevice(name.value.decode(), memory.total, (major.value, minor.value))


def _call(library: ctypes.CDLL, name: str, *arguments: object) -> None:
    code = getattr(library, name)(*arguments)
    if code != 0:
        library.nvmlErrorString.restype = ctypes.c_char_p
        text = library.nvmlErrorString(code) or b"unknown error"
        raise NvmlError(f"{name} failed with code {code}: {text.decode()}")


def visible(devices: list[NvmlDevice]) -> list[NvmlDevice] | None:
    """The devices that a CUDA process of this environment would see, in its own order.

    ``None`` where NVML cannot tell: devices named by UUID, parts of devices (MIG), and several
    kinds of device in CUDA's default order, which puts the fastest first.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    ordered = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID" or len(set(devices)) <= 1
    if chosen is None:
        return devices if ordered else None
    found: list[NvmlDevice] = []
    for word in chosen.split(","):
        if not word.strip().lstrip("-").isdigit():
            return found if not word.strip() and not found else None
        index = int(word)
        if not 0 <= index < len(devices):  # CUDA stops reading at the first that does not exist
            break
        found.append(devices[index])
    return found if ordered or not found else None
