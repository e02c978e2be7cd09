"""One valid plugin of each kind, honest about doing nothing, to add to a registry in process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hardpoint import (
    Artifact,
    ArtifactError,
    Assignment,
    Backend,
    BackendInfo,
    CompileError,
    Device,
    Partitioner,
    PartitionerInfo,
    PlanError,
    Probe,
    ProbeRequest,
    Reader,
    Serializer,
    SerializerInfo,
    Support,
    TensorInfo,
    Transport,
    TransportError,
    TransportInfo,
    WeightsError,
    hookimpl,
)

DEVICE = Device("0", "a device that runs nothing")


class NullBackend(Backend):
    def devices(self) -> list[Device]:
        return [DEVICE]

    def support(self, program: Any, device: Device) -> Support:
        return Support(frozenset(), {node.name: "it runs nothing" for node in program.graph.nodes})

    def compile(self, program: Any, device: Device, options: Any) -> Artifact:
        raise CompileError("the null backend compiles nothing")

    def load(self, artifact: Artifact, device: Device) -> Any:
        raise ArtifactError("the null backend has no artifacts")


class EmptyReader(Reader):
    metadata: Mapping[str, str] = {}

    def __getitem__(self, name: str) -> TensorInfo:
        raise KeyError(name)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def tensor(self, name: str) -> Any:
        raise WeightsError(f"no tensor {name}")

    def slice(self, name: str, index: Any) -> Any:
        raise WeightsError(f"no tensor {name}")

    def close(self) -> None:
        return None


class EmptySerializer(Serializer):
    def recognizes(self, path: Path) -> bool:
        return path.stat().st_size == 0

    def open(self, path: Path, *, device: str = "cpu") -> Reader:
        return EmptyReader()

    def save(self, tensors: Any, path: Path, *, metadata: Any = None) -> None:
        if tensors:
            raise WeightsError("the empty format holds no tensors")
        path.write_bytes(b"")


class RefusingPartitioner(Partitioner):
    def partition(self, program: Any, targets: Any, objective: Any, costs: Any) -> Assignment:
        raise PlanError("this partitioner assigns nothing")


class LonelyTransport(Transport):
    def process_group(self, store: Any, rank: int, world_size: int, timeout: Any) -> Any:
        raise TransportError("this transport reaches nobody")


class BackendPlugin:
    """A valid backend; subclasses break one thing each."""

    @hookimpl
    def hardpoint_backend_info(self) -> Any:
        return BackendInfo(requires_api=(1, 0), summary="runs nothing", precisions=("fp32",))

    @hookimpl
    def hardpoint_backend_probe(self, request: ProbeRequest) -> Any:
        return Probe.ready(DEVICE, notes=(f"deep={request.deep}",))

    @hookimpl
    def hardpoint_backend_open(self, config: Mapping[str, object]) -> Any:
        return NullBackend()


class EveryKind(BackendPlugin):
    """One object with the hooks of all four kinds."""

    @hookimpl
    def hardpoint_serializer_info(self) -> SerializerInfo:
        return SerializerInfo(requires_api=(1, 0), summary="empty files", suffixes=(".empty",))

    @hookimpl
    def hardpoint_serializer_probe(self) -> Probe:
        return Probe.ready()

    @hookimpl
    def hardpoint_serializer_open(self) -> Serializer:
        return EmptySerializer()

    @hookimpl
    def hardpoint_partitioner_info(self) -> PartitionerInfo:
        return PartitionerInfo(requires_api=(1, 0), summary="refuses", objectives=("latency",))

    @hookimpl
    def hardpoint_partitioner_probe(self) -> Probe:
        return Probe.ready()

    @hookimpl
    def hardpoint_partitioner_open(self) -> Partitioner:
        return RefusingPartitioner()

    @hookimpl
    def hardpoint_transport_info(self) -> TransportInfo:
        return TransportInfo(
            requires_api=(1, 0), summary="lonely", devices=("cpu",), collectives=()
        )

    @hookimpl
    def hardpoint_transport_probe(self) -> Probe:
        return Probe.unavailable("there is nobody to talk to", remedy="make friends")

    @hookimpl
    def hardpoint_transport_open(self) -> Transport:
        return LonelyTransport()
