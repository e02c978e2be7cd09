"""For each kind: what its hooks are called and what they must return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hardpoint.errors import ContractViolation
from hardpoint.interfaces.backend import Backend, BackendInfo
from hardpoint.interfaces.kinds import Kind
from hardpoint.interfaces.partitioner import Partitioner, PartitionerInfo
from hardpoint.interfaces.probe import Probe
from hardpoint.interfaces.serializer import Serializer, SerializerInfo
from hardpoint.interfaces.transport import Transport, TransportInfo
from hardpoint.registry.record import Record

Info: TypeAlias = SerializerInfo | BackendInfo | PartitionerInfo | TransportInfo
Provider: TypeAlias = Serializer | Backend | Partitioner | Transport

STAGES = ("info", "probe", "open")


@dataclass(frozen=True, slots=True)
class Contract:
    """What ``info``, ``probe`` and ``open`` of one kind return."""

    info: type
    open: type
    probe: type = Probe


CONTRACTS: Mapping[Kind, Contract] = {
    "serializer": Contract(SerializerInfo, Serializer),
    "backend": Contract(BackendInfo, Backend),
    "partitioner": Contract(PartitionerInfo, Partitioner),
    "transport": Contract(TransportInfo, Transport),
}


def hook_name(kind: Kind, stage: str) -> str:
    """``hardpoint_<kind>_<stage>``."""
    return f"hardpoint_{kind}_{stage}"


def check_result(record: Record, stage: str, result: object) -> None:
    """:raises ContractViolation: the hook returned something of another type."""
    wanted: type = getattr(CONTRACTS[record.kind], stage)
    if not isinstance(result, wanted):
        got = "None" if result is None else f"an object of type {type(result).__name__}"
        raise ContractViolation(
            f"{hook_name(record.kind, stage)} of {record.key} returned {got}",
            provider=record.key,
            origin=record.origin,
            cause=f"the contract wants a hardpoint.{wanted.__name__}",
            remedy=f"its authors: return a hardpoint.{wanted.__name__} from that hook",
        )
