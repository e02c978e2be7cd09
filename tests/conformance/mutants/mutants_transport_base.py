"""A correct transport that is easy to break: a Python group in front of gloo's."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from hardpoint import Transport, TransportInfo, hookimpl
from hardpoint_gloo import plugin as gloo
from hardpoint_gloo.options import Options
from hardpoint_gloo.transport import GlooTransport

NAMES = (
    "abort", "all_gather_single", "all_gather_single_coalesced", "all_to_all_single", "allgather",
    "allgather_coalesced", "allreduce", "allreduce_coalesced", "alltoall", "barrier", "broadcast",
    "gather", "recv", "recv_anysource", "reduce", "reduce_scatter", "reduce_scatter_single",
    "reduce_scatter_single_coalesced", "scatter", "send", "shutdown",
)  # fmt: skip


class Group(dist.ProcessGroup):
    """Hands every call on to gloo's group."""

    def __init__(self, inner: dist.ProcessGroup) -> None:
        super().__init__(inner.rank(), inner.size())
        self.inner = inner
        self.named = ""

    def getBackendName(self) -> str:
        return "in-front-of-gloo"

    def setGroupName(self, name: str) -> None:
        self.named = name

    def getGroupName(self) -> str:
        return self.named

    @property
    def group_name(self) -> str:
        return self.named


def _handed_on(name: str) -> Any:
    def call(self: Group, *arguments: Any, **more: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **more)

    call.__name__ = name
    return call


for _name in NAMES:
    setattr(Group, _name, _handed_on(_name))


class InFront(Transport):
    """Makes gloo's group, and puts ``group`` in front."""

    group: type[Group] = Group

    def connected(self, store: Any, rank: int, size: int, timeout: Any) -> dist.ProcessGroup:
        return GlooTransport(Options()).process_group(store, rank, size, timeout)

    def process_group(self, store: Any, rank: int, size: int, timeout: Any) -> dist.ProcessGroup:
        return self.group(self.connected(store, rank, size, timeout))


class Provider:
    """The hooks of a transport.

    :param made: the transport's class, or the class of its groups.
    :param info: what its info says otherwise than gloo's.
    """

    hardpoint_transport_probe = staticmethod(gloo.hardpoint_transport_probe)

    def __init__(self, made: type = Group, **info: Any) -> None:
        grouped = issubclass(made, Group)
        self._transport = type(made.__name__, (InFront,), {"group": made}) if grouped else made
        declared = gloo.hardpoint_transport_info()
        fields = {name: getattr(declared, name) for name in declared.__slots__}
        self._info = TransportInfo(**{**fields, **info})

    @hookimpl
    def hardpoint_transport_info(self) -> TransportInfo:
        return self._info

    @hookimpl
    def hardpoint_transport_open(self, config: Any) -> Transport:
        return self._transport()


correct = Provider()
