"""Whether the backend can work here: what can be told without a context first, and in this order.

PyTorch's build, then the driver's own list of devices, then, where asked to or where that list
does not do, a child process that starts the driver.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from hardpoint import Device, Probe, ProviderUnavailable
from hardpoint_cuda import nvml
from hardpoint_cuda.builds import torch_version
from hardpoint_cuda.child import ChildError, ask
from hardpoint_cuda.vendor import Vendor

# Devices, or why there are none; ``None``: the list is there and cannot be read off for us.
Listing = Callable[[], "list[Device] | str | None"]


def probe(vendor: Vendor, listing: Listing, *, deep: bool) -> Probe:
    """Ask; never raises for what is missing."""
    missing = build_missing(vendor)
    if missing:
        return Probe.unavailable(
            missing,
            remedy=f"install PyTorch 2.13's wheel for {vendor.brand}",
        )
    found = listing()
    if isinstance(found, str):
        return Probe.unavailable(found, remedy=_remedy(vendor))
    if found == []:
        return Probe.unavailable(_hidden(vendor), remedy=_remedy(vendor))
    if found is not None and not deep:
        return Probe.ready(*found)
    return _asked(vendor)


def require(vendor: Vendor, listing: Listing) -> None:
    """What opening asks: the same, and then that the driver really starts, in this process.

    :raises ProviderUnavailable: the backend cannot work here, with the probe's reason.
    """
    found = probe(vendor, listing, deep=False)
    reason, remedy = found.reason, found.remedy
    if found.available:
        import torch

        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or ["no message"])[0]
            remedy = _remedy(vendor)
        else:
            return
    raise ProviderUnavailable(
        f"the {vendor.name} backend cannot be used here",
        provider=vendor.provider,
        origin=vendor.origin,
        cause=reason,
        remedy=remedy,
    )


def build_missing(vendor: Vendor) -> str:
    """Why the installed PyTorch does not serve; ``""`` where it does."""
    built = torch_version()
    if not built:
        return "PyTorch is not installed"
    if built.get(vendor.built):
        return ""
    if built.get("hip"):
        return (
            f"PyTorch {built['version']} is built for ROCm {built['hip']}, which answers "
            "torch.cuda.* in CUDA's place; its backend is 'rocm'"
        )
    if built.get("cuda"):
        return f"PyTorch {built['version']} is built for CUDA {built['cuda']}, not for ROCm"
    return f"PyTorch {built['version']} is built without {vendor.brand}"


def _asked(vendor: Vendor) -> Probe:
    try:
        answer = ask()
    except ChildError as error:
        return Probe.unavailable(str(error), remedy=_remedy(vendor))
    found, broken = [], []
    for facts in answer["devices"]:
        if "error" in facts:
            broken.append(f"{vendor.name}:{facts['index']} ({facts['name']}): {facts['error']}")
            continue
        properties = {"arch": facts["arch"], "kernels": answer["kernels"]}
        found.append(
            Device(
                str(facts["index"]), facts["name"], f"cuda:{facts['index']}", facts["memory"],
                properties,
            )
        )  # fmt: skip
    if found:
        return Probe.ready(*found, notes=tuple(f"left out: {text}" for text in broken))
    reason = "; ".join(broken) or _hidden(vendor)
    return Probe.unavailable(reason, remedy=_remedy(vendor))


def nvidia() -> list[Device] | str | None:
    """NVIDIA's devices as NVML tells them."""
    try:
        driver, physical = nvml.listing()
    except nvml.NvmlError as error:
        # Jetson has CUDA and no NVML: CUDA's own library, opened and not started, tells them apart.
        return None if nvml.has_cuda() else str(error)
    found = nvml.visible(physical)
    if found is None:
        return None
    return [
        Device(
            str(i), d.name, f"cuda:{i}", d.memory,
            {"arch": f"sm_{d.capability[0]}{d.capability[1]}", "driver": driver},
        )
        for i, d in enumerate(found)
    ]  # fmt: skip


def _hidden(vendor: Vendor) -> str:
    hiding = [f"{name}={os.environ[name]}" for name in vendor.hiding if name in os.environ]
    why = f" ({', '.join(hiding)} hides them)" if hiding else ""
    return f"no {vendor.brand} device is visible{why}"


def _remedy(vendor: Vendor) -> str:
    return f"check the driver, the container's access to the device, and {vendor.hiding[0]}"
