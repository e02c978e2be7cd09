"""What an artifact is bound to, written when it is compiled and held against where it is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import get_args

from hardpoint import Artifact
from hardpoint_cpu.origin import artifact_error
from hardpoint_cuda.options import Options
from hardpoint_cuda.vendor import Hardware, Need, Vendor

_AGAIN = "compile the segment again on this machine, or use mode 'eager'"


def facts(options: Options, precision: str, hardware: Hardware) -> dict[str, object]:
    """What is written into the metadata."""
    return {
        "mode": options.mode,
        "precision": precision,
        "compute": options.arithmetic(precision),
        "weights": options.weights if precision == "int8w" else "as computed",
        "needs": list(options.needs(precision)),
        "tf32": options.tf32,
        "graphs": options.graph_shapes if options.graphs else 0,
        "pinned": options.pinned,
        "torch": hardware.torch,
        "device": hardware.name,
        "arch": hardware.arch,
        "driver": hardware.driver,
        "runtime": hardware.runtime,
    }


def check(artifact: Artifact, hardware: Hardware, vendor: Vendor) -> str:
    """Refuse what was made for something else; gives the mode.

    Modes ``eager`` and ``inductor`` hold the graph only, and open wherever the device can do what
    they need. Compiled code opens on its own architecture, under its own PyTorch, and under no
    older driver than it was made with.

    :raises ArtifactError: it does not fit this device, with the reason.
    """
    modes = {vendor.format(mode): mode for mode in vendor.modes}
    mode = modes.get(artifact.format)
    if mode is None:
        raise artifact_error(
            f"the artifact's format {artifact.format!r} is not one that the {vendor.name} backend "
            "reads",
            cause=f"it reads {', '.join(modes)}",
            remedy="open it with the backend that made it, or compile the segment again",
        )
    made = artifact.metadata
    needs = made.get("needs")
    if not isinstance(needs, list) or not all(need in get_args(Need) for need in needs):
        raise artifact_error(
            "the artifact does not say what it needs of a device, in words of this version",
            cause=f"it says {needs!r}",
            remedy="compile the segment again with this version",
        )
    for need in needs:
        reason = vendor.lacks(hardware, need)
        if reason:
            raise artifact_error(
                f"the artifact does not run on {hardware.name}",
                cause=reason,
                remedy="compile with another precision or mode for this device",
            )
    if mode in ("aot", "tensorrt"):
        _same(made, hardware, "arch", hardware.arch, "another architecture")
        _not_older(made, hardware)
    if mode == "aot":
        _same(made, hardware, "torch", hardware.torch, "another version of PyTorch")
        _same(made, hardware, "runtime", hardware.runtime, f"another version of {vendor.brand}")
    if mode == "tensorrt":
        _same(made, hardware, "device", hardware.name, "another model of device")
    return mode


def _same(made: Mapping[str, object], hardware: Hardware, name: str, here: str, what: str) -> None:
    if made.get(name) != here:
        raise artifact_error(
            f"the artifact was compiled for {what}",
            cause=f"it was compiled for {made.get(name)}, this is {here} ({hardware.name})",
            remedy=_AGAIN,
        )


def _not_older(made: Mapping[str, object], hardware: Hardware) -> None:
    """Where neither side knows the driver's version, there is nothing to compare."""
    built = str(made.get("driver") or "")
    if built and hardware.driver and _numbers(hardware.driver) < _numbers(built):
        raise artifact_error(
            "the artifact was compiled under a newer driver",
            cause=f"it was compiled under {built}, this is {hardware.driver}",
            remedy=f"update the driver; or {_AGAIN}",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
