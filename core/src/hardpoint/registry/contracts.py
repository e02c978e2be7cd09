"""For each kind: what its hooks are called and what they must return."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, TypeAlias, Union

from hardpoint.errors import ContractViolation
from hardpoint.interfaces.kinds import Kind
from hardpoint.interfaces.probe import Probe
from hardpoint.registry.record import Record

if TYPE_CHECKING:
    from hardpoint.interfaces.backend import Backend, BackendInfo
    from hardpoint.interfaces.partitioner import Partitioner, PartitionerInfo
    from hardpoint.interfaces.serializer import Serializer, SerializerInfo
    from hardpoint.interfaces.transport import Transport, TransportInfo

Info: TypeAlias = Union["SerializerInfo", "BackendInfo", "PartitionerInfo", "TransportInfo"]
Provider: TypeAlias = Union["Serializer", "Backend", "Partitioner", "Transport"]

STAGES = ("info", "probe", "open")


def wanted(kind: Kind, stage: str) -> type:
    """What a stage of a kind returns, e.g. of a backend ``BackendInfo``, ``Probe``, ``Backend``.

    A kind's interface is imported when a provider of it is first asked: a load needs one of four.
    """
    if stage == "probe":
        return Probe
    interface = importlib.import_module(f"hardpoint.interfaces.{kind}")
    found: type = getattr(interface, kind.capitalize() + ("Info" if stage == "info" else ""))
    return found


def hook_name(kind: Kind, stage: str) -> str:
    """``hardpoint_<kind>_<stage>``."""
    return f"hardpoint_{kind}_{stage}"


def check_result(record: Record, stage: str, result: object) -> None:
    """:raises ContractViolation: the hook returned something of another type."""
    due = wanted(record.kind, stage)
    if not isinstance(result, due):
        got = "None" if result is None else f"an object of type {type(result).__name__}"
        raise ContractViolation(
            f"{hook_name(record.kind, stage)} of {record.key} returned {got}",
            provider=record.key,
            origin=record.origin,
            cause=f"the contract wants a hardpoint.{due.__name__}",
            remedy=f"its authors: return a hardpoint.{due.__name__} from that hook",
        )
