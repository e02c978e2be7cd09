"""Waiting for devices that compute after a call has returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch


def settling(devices: Iterable[str | torch.device]) -> Callable[[], None]:
    """What waits until each of ``devices`` has done what it was asked to; timing needs it.

    Nothing on the CPU, where a call that returned is done. Of several accelerators each is waited
    for by name: PyTorch's own call without a name waits for the current one alone.
    """
    busy = {torch.device(device) for device in devices} - {torch.device("cpu")}
    # Asked only where there is something to wait for: asking may start a driver.
    there = bool(busy) and torch.accelerator.is_available()
    kind = torch.accelerator.current_accelerator() if there else None
    busy = {device for device in busy if kind is not None and device.type == kind.type}

    def settle() -> None:
        for device in busy:
            torch.accelerator.synchronize(device)

    return settle
