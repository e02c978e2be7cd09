"""Transports move tensors between ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch.distributed as dist
    from torch._C._distributed_c10d import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportInfo:
    """What a transport is.

    :param requires_api: (major, minor) of the contract it was written for; no default on purpose.
    :param devices: types of device whose tensors it moves, in PyTorch's terms, e.g. ``("cpu",)``.
    :param collectives: names as in ``torch.distributed``, e.g. ``("all_reduce", "broadcast")``.
    :param dtypes: what it moves, PyTorch's names without ``torch.``; empty: all that gloo moves.
    :param reductions: e.g. ``("SUM", "MAX")``, names of ``ReduceOp``; empty: all that gloo has.
    """

    requires_api: tuple[int, int]
    summary: str
    devices: tuple[str, ...]
    collectives: tuple[str, ...]
    dtypes: tuple[str, ...] = ()
    reductions: tuple[str, ...] = ()
    unverified: str = ""


class Transport(ABC):
    """One transport, opened."""

    @abstractmethod
    def process_group(
        self, store: Store, rank: int, world_size: int, timeout: timedelta
    ) -> dist.ProcessGroup:
        """Join a group; every rank calls it with the same store and world size.

        :raises TransportError: the group cannot be made, with the reason.
        """
