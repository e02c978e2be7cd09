"""Makes one group of one transport, when ``torch.distributed`` asks for it."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import (
    Backend as NativeBackend,
    PrefixStore,
    Store,
    _DistributedBackendOptions,
)
from torch.distributed.constants import default_pg_timeout

from hardpoint.bridges.roll_call import RollCall
from hardpoint.errors import ConfigError, ContractViolation, HardpointError, TransportError
from hardpoint.registry.record import Record
from hardpoint.registry.registry import Registry

# What PyTorch gives NCCL. Its 30 minutes for all else are a hang to whoever waits for a dead rank.
DEFAULT_TIMEOUT = timedelta(minutes=10)

# torchrun restarts workers on the store of the attempt before, with the addresses of the dead.
ATTEMPT_VARIABLE = "TORCHELASTIC_RESTART_COUNT"

# A group's own store -> the transport that it was first made for.
_groups: weakref.WeakKeyDictionary[Store, str] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """What a group is made with; our own form of PyTorch's ``pg_options``."""

    config: Mapping[str, object]
    timeout: timedelta


class Mounted:
    """One transport that ``torch.distributed`` knows as ``hp_<name>``.

    :param devices: types of device whose tensors it moves.
    """

    def __init__(
        self, registry: Registry, record: Record, backend: str, devices: list[str]
    ) -> None:
        self.registry = registry
        self.record = record
        self.name = record.name
        self.backend = backend
        self.devices = devices
        # Of the default group, for later groups that say nothing.
        self._defaults: GroupOptions | None = None

    @property
    def provider(self) -> str:
        """``transport:name``."""
        return self.record.key

    @property
    def origin(self) -> str:
        """``distribution version``."""
        return self.record.origin

    def create(
        self, request: _DistributedBackendOptions, pg_options: object
    ) -> dist.ProcessGroup | NativeBackend:
        """PyTorch's creator function: open the transport, call the roll, make the group.

        :raises HardpointError: the transport cannot be opened, or the group not be made.
        """
        self._refuse_to_share(request)
        options = self._options(request, pg_options)
        transport = self.registry.open("transport", self.name, options.config)
        rank, size = request.group_rank, request.group_size
        attempt = os.environ.get(ATTEMPT_VARIABLE, "0")
        shared = PrefixStore(f"hardpoint/{self.name}/attempt-{attempt}/", request.store)
        roll = RollCall(shared, rank, size, options.timeout)
        try:
            store = roll.answer()
            group = transport.process_group(store, rank, size, options.timeout)
        except HardpointError as error:
            error.provider = error.provider or self.provider
            error.origin = error.origin or self.origin
            if roll.signed:
                error.cause = "; ".join(filter(None, (error.cause, roll.lost(error.what))))
            raise
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            what = f"transport {self.name!r} could not connect rank {rank} of {size}"
            lost = roll.lost(what) if roll.signed else ""
            raise TransportError(
                what,
                provider=self.provider,
                origin=self.origin,
                cause="; ".join(filter(None, (cause, lost))),
                remedy="start all ranks, with the same store and world_size, and let them reach "
                f"each other within the timeout (now {options.timeout.total_seconds():g} s)",
            ) from error
        self._check(group, rank, size)
        if _is_default(request):
            self._defaults = options
        return self._as_torch_takes_it(group)

    def _options(self, request: _DistributedBackendOptions, given: object) -> GroupOptions:
        if isinstance(given, GroupOptions):
            return given
        if given is not None and not isinstance(given, Mapping):
            raise ConfigError(
                f"pg_options of {self.backend!r} is a {type(given).__name__}",
                provider=self.provider,
                origin=self.origin,
                remedy="give the transport's options as a mapping, e.g. {'name': value}, or None",
            )
        defaults = None if _is_default(request) else self._inherited()
        # PyTorch passes its 30 minutes on as if the caller had wished them.
        timeout = request.timeout
        if timeout == default_pg_timeout:
            timeout = defaults.timeout if defaults else DEFAULT_TIMEOUT
        if given is None:
            return GroupOptions(defaults.config if defaults else {}, timeout)
        return GroupOptions({str(key): value for key, value in given.items()}, timeout)

    def _inherited(self) -> GroupOptions | None:
        """The default group's options, if that is one of ours."""
        backends = dist.get_backend().replace(",", ":").split(":")
        return self._defaults if self.backend in backends else None

    def _refuse_to_share(self, request: _DistributedBackendOptions) -> None:
        """PyTorch keeps one backend of type CUSTOM per group and uses it for all their devices.

        Checked on torch 2.13: ``"cpu:hp_a,cuda:hp_b"`` would silently run all on ``hp_a``.
        """
        store = request.store
        group = store.underlying_store if isinstance(store, PrefixStore) else store
        first = _groups.setdefault(group, self.backend)
        if first != self.backend:
            raise TransportError(
                f"{self.backend!r} cannot share a group with {first!r}",
                provider=self.provider,
                origin=self.origin,
                cause="PyTorch keeps one backend that is not built in per group",
                remedy=f"combine one of them with a built-in one (e.g. 'cpu:{first},cuda:nccl'), "
                "or make two groups",
            )

    def _check(self, group: object, rank: int, size: int) -> None:
        wrong = ""
        if not isinstance(group, dist.ProcessGroup):
            wrong = f"returned an object of type {type(group).__name__}, not a ProcessGroup"
        elif (group.rank(), group.size()) != (rank, size):
            wrong = (
                f"made rank {group.rank()} of {group.size()} where rank {rank} of {size} was asked"
            )
        if wrong:
            raise self._violation(wrong)

    def _as_torch_takes_it(self, group: dist.ProcessGroup) -> dist.ProcessGroup | NativeBackend:
        """A native group's backend, else the group.

        PyTorch fills a group of its own with a backend: only so other devices, its debug wrapper
        and native timeouts work. A group from us would replace it; a Python one has to.
        """
        if type(group) is not dist.ProcessGroup:
            return group
        try:
            backends = [group._get_backend(torch.device(device)) for device in self.devices]
        except RuntimeError as error:
            raise self._violation(f"made a group that lacks a declared device: {error}") from error
        one = all(backend is backends[0] for backend in backends)
        return backends[0] if one else group

    def _violation(self, wrong: str) -> ContractViolation:
        return ContractViolation(
            f"transport {self.name!r} {wrong}",
            provider=self.provider,
            origin=self.origin,
            remedy="its authors: see hardpoint.Transport.process_group",
        )


def _is_default(request: _DistributedBackendOptions) -> bool:
    """Whether this is the default group: PyTorch lists no ranks for it."""
    return not request.global_ranks_in_group
