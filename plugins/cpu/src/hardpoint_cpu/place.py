"""Where a segment runs: the CPU, or the device of a backend that uses these modules for its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of device, as PyTorch's dispatcher and this package's messages know it.

    :param device: where tensors live.
    :param name: in messages, e.g. ``"CPU"``.
    :param key: the dispatcher's.
    :param falls_back: the dispatcher has an answer for every operator there, which is to copy to
        the CPU or to raise: kernels of the device's own must be looked for by name.
    :param lacks: dtypes that the device does not have -> why, in words.
    """

    device: torch.device
    name: str
    key: str
    falls_back: bool = False
    lacks: Mapping[torch.dtype, str] = field(default_factory=dict)


CPU = Place(
    torch.device("cpu"),
    "CPU",
    "CPU",
    lacks={torch.complex32: "the CPU has hardly a kernel for torch.complex32"},
)
