"""Process groups over gloo."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroupGloo

from hardpoint import Transport, TransportError
from hardpoint_gloo.devices import open_devices
from hardpoint_gloo.options import Options
from hardpoint_gloo.origin import origin

if TYPE_CHECKING:
    # torch.distributed has it too, but not for type checkers.
    from torch._C._distributed_c10d import Store

# As PyTorch does for its own gloo groups.
THREADS_PER_DEVICE = 2


class GlooTransport(Transport):
    """Makes PyTorch's own gloo groups: the C++ implementation, with nothing in between."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def process_group(
        self, store: Store, rank: int, world_size: int, timeout: timedelta
    ) -> dist.ProcessGroup:
        """Connect every rank with every other one, over TCP.

        :param timeout: limit for connecting, and the default limit of each collective.
        :raises TransportError: an interface has no address, or not all ranks came in time.
        """
        devices = open_devices(self._options)
        # PyTorch's type stub calls the class Options, PyTorch itself _Options.
        options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._timeout = timeout
        options._devices = devices
        options._threads = self._options.threads or THREADS_PER_DEVICE * len(devices)
        try:
            gloo = ProcessGroupGloo(store, rank, world_size, options)
        except RuntimeError as error:
            raise TransportError(
                f"gloo could not connect rank {rank} of {world_size}",
                provider="transport:gloo",
                origin=origin(),
                cause=f"{type(error).__name__}: {error}",
                remedy=f"start all {world_size} ranks with the same store and world size, let "
                "their hosts reach each other over TCP, and give them time with timeout= "
                f"(now {timeout.total_seconds():g} s)",
            ) from error
        gloo._set_sequence_number_for_group()
        group = dist.ProcessGroup(store, rank, world_size)
        group._set_default_backend(dist.ProcessGroup.BackendType.GLOO)
        group._register_backend(torch.device("cpu"), dist.ProcessGroup.BackendType.GLOO, gloo)
        return group
