"""Asking a provider whether it can work on this machine. *Unavailable* is not *broken*."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hardpoint.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Device:
    """One device of a backend.

    :param id: what stands after the colon of a target, e.g. ``"0"`` in ``cuda:0``, ``"CPU"`` in
        ``openvino:CPU``.
    :param name: for people, e.g. ``"AMD EPYC 9654"``.
    :param torch_device: where this device's tensors live, in PyTorch's terms, e.g. ``"cuda:0"``.
    :param memory: bytes of memory, or ``None`` where unknown.
    :param properties: further facts, JSON-serializable.
    """

    id: str
    name: str
    torch_device: str = "cpu"
    memory: int | None = None
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """What the host wants to know.

    :param deep: may initialise drivers and devices (the host then asks in a subprocess); ``False``
        asks for what can be told without touching them.
    """

    deep: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """A provider's answer. Build it with :meth:`ready` or :meth:`unavailable`.

    :param available: whether it can work here.
    :param reason: why not, in words; required where ``available`` is false.
    :param remedy: what the user could do about it.
    :param devices: devices found (backends; empty for the other kinds).
    :param notes: remarks for people, e.g. ``"unverified on hardware"``.
    :raises ConfigError: unavailable without a reason.
    """

    available: bool
    reason: str = ""
    remedy: str = ""
    devices: tuple[Device, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.available and not self.reason.strip():
            raise ConfigError(
                "a probe answered 'unavailable' without a reason",
                remedy="return Probe.unavailable('what is missing', remedy='how to get it')",
            )

    @classmethod
    def ready(cls, *devices: Device, notes: tuple[str, ...] = ()) -> Probe:
        """It can work here, on these devices."""
        return cls(True, devices=devices, notes=notes)

    @classmethod
    def unavailable(cls, reason: str, *, remedy: str = "", notes: tuple[str, ...] = ()) -> Probe:
        """It cannot work here, and why."""
        return cls(False, reason=reason, remedy=remedy, notes=notes)
