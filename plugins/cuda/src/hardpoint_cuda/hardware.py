"""The devices of this process, once the backend is open. Asking starts the driver."""

from __future__ import annotations

from pathlib import Path

import torch

from hardpoint import Device, ProviderUnavailable, did_you_mean
from hardpoint_cuda import nvml, probing
from hardpoint_cuda.vendor import Hardware, Vendor, capability


def find(device: Device, vendor: Vendor) -> Hardware:
    """What ``device`` really is.

    :raises ProviderUnavailable: it is not here, or PyTorch has no kernels for it.
    """
    missing = probing.build_missing(vendor)
    if missing:
        raise _unavailable(vendor, f"{vendor.name}:{device.id} cannot be used", missing)
    count = torch.cuda.device_count()
    known = [str(i) for i in range(count)]
    if device.id not in known:
        raise _unavailable(
            vendor, f"the {vendor.name} backend has no device {device.id!r}",
            f"devices found: {', '.join(known) or 'none'}", did_you_mean(device.id, known),
        )  # fmt: skip
    index = int(device.id)
    try:
        facts = torch.cuda.get_device_properties(index)
        kernels = tuple(torch.cuda.get_arch_list())
    except (RuntimeError, AssertionError) as error:
        cause = (str(error).strip().splitlines() or ["no message"])[0]
        raise _unavailable(vendor, f"{vendor.name}:{index} cannot be started", cause) from error
    hip = torch.version.hip
    found = Hardware(
        index=index,
        name=facts.name,
        arch=facts.gcnArchName.split(":")[0] if hip else f"sm_{facts.major}{facts.minor}",
        driver=driver(vendor),
        runtime=str(hip or torch.version.cuda),
        torch=torch.__version__,
        memory=facts.total_memory,
        kernels=kernels,
    )
    if not has_kernels(found.arch, kernels):
        raise _unavailable(
            vendor, f"PyTorch {found.torch} has no kernels for {found.name} ({found.arch})",
            f"it was built for {', '.join(kernels)}", "install a PyTorch that was built for it",
        )  # fmt: skip
    return found


def driver(vendor: Vendor) -> str:
    """The driver's version; ``""`` where nothing tells it."""
    if vendor.built == "hip":
        path = Path("/sys/module/amdgpu/version")
        return path.read_text().strip() if path.is_file() else ""
    try:
        return nvml.listing()[0]
    except nvml.NvmlError:
        return ""


def has_kernels(arch: str, built: tuple[str, ...]) -> bool:
    """Whether code for ``built`` runs on ``arch``: "available" is not "has kernels for it".

    Machine code of CUDA's runs on its own capability and on later ones of the same major number;
    PTX (``compute_80``) on every later one; code with a suffix (``sm_90a``), and AMD's, on its own.
    """
    if not built or arch in built:
        return True
    if not arch.startswith("sm_"):
        return False
    major, minor = capability(arch)
    for name in built:
        if name.startswith("compute_") and name[-1].isdigit():
            if capability(name.replace("compute_", "sm_")) <= (major, minor):
                return True
        elif name.startswith("sm_") and name[-1].isdigit():
            other = capability(name)
            if other[0] == major and other[1] <= minor:
                return True
    return False


def _unavailable(vendor: Vendor, what: str, cause: str, remedy: str = "") -> ProviderUnavailable:
    return ProviderUnavailable(
        what,
        provider=vendor.provider,
        origin=vendor.origin,
        cause=cause,
        remedy=remedy or "`hardpoint doctor` says what is missing; or choose another target",
    )
