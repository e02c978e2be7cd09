"""All hook specs, and nothing else.

Three ``firstresult`` specs for each kind, called on *one* named provider at a time, and one
broadcast spec for observers. A plugin marks its functions with ``hardpoint.hookimpl``, and takes
the arguments that it needs: ``provider`` (the name that was asked for) serves an embedder's
wrappers, and modules that provide several names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from hardpoint.events import Event
    from hardpoint.interfaces.backend import Backend, BackendInfo
    from hardpoint.interfaces.partitioner import Partitioner, PartitionerInfo
    from hardpoint.interfaces.probe import Probe, ProbeRequest
    from hardpoint.interfaces.serializer import Serializer, SerializerInfo
    from hardpoint.interfaces.transport import Transport, TransportInfo

PROJECT = "hardpoint"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class SerializerSpec:
    """Reads and writes files of weights."""

    @hookspec(firstresult=True)
    def hardpoint_serializer_info(self, provider: str) -> SerializerInfo:
        """What this serializer is, and which contract minor it needs."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_serializer_probe(self, request: ProbeRequest, provider: str) -> Probe:
        """Whether it can work here. Never raises for something missing: says so in the reason."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_serializer_open(self, config: Mapping[str, object], provider: str) -> Serializer:
        """Import what is heavy and return the serializer."""
        raise NotImplementedError


class BackendSpec:
    """Compiles and runs segments on hardware."""

    @hookspec(firstresult=True)
    def hardpoint_backend_info(self, provider: str) -> BackendInfo:
        """What this backend is, its precisions, and which contract minor it needs."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_backend_probe(self, request: ProbeRequest, provider: str) -> Probe:
        """Available with devices, or unavailable with a reason. Never raises without hardware."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_backend_open(self, config: Mapping[str, object], provider: str) -> Backend:
        """Import the SDK and return the backend."""
        raise NotImplementedError


class PartitionerSpec:
    """Decides which node of a program runs on which target."""

    @hookspec(firstresult=True)
    def hardpoint_partitioner_info(self, provider: str) -> PartitionerInfo:
        """What this partitioner is, and which contract minor it needs."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_partitioner_probe(self, request: ProbeRequest, provider: str) -> Probe:
        """Whether it can work here (a solver may be missing)."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_partitioner_open(
        self, config: Mapping[str, object], provider: str
    ) -> Partitioner:
        """Return the partitioner."""
        raise NotImplementedError


class TransportSpec:
    """Moves tensors between ranks."""

    @hookspec(firstresult=True)
    def hardpoint_transport_info(self, provider: str) -> TransportInfo:
        """What this transport is, its devices, and which contract minor it needs."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_transport_probe(self, request: ProbeRequest, provider: str) -> Probe:
        """Whether it can work here, with a reason where not."""
        raise NotImplementedError

    @hookspec(firstresult=True)
    def hardpoint_transport_open(self, config: Mapping[str, object], provider: str) -> Transport:
        """Import what is heavy and return the transport."""
        raise NotImplementedError


class ObserverSpec:
    """Watches; cannot change anything."""

    @hookspec
    def hardpoint_event(self, event: Event) -> None:
        """Called for every event: discovered, loaded, failed, planned, compiled, ran, fell back."""
        raise NotImplementedError


SPECS = (SerializerSpec, BackendSpec, PartitionerSpec, TransportSpec, ObserverSpec)
