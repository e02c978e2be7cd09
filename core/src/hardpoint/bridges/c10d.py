"""``torch.distributed`` over transports: transport ``x`` is its backend ``hp_x``.

After ``register(registry)``, ``torch.distributed.init_process_group("hp_x")``, ``new_group``,
device meshes and ``"cpu:hp_x,cuda:nccl"`` work as with a built-in backend;
:func:`init_process_group` does both, and turns what goes wrong into a ``TransportError``.

A transport's options go through PyTorch's ``pg_options``, as a mapping. A later group that gives
none takes over those of the default group, and its timeout likewise. A timeout of exactly 30
minutes, which PyTorch hands over where the caller gave none, counts as none: see
``DEFAULT_TIMEOUT``. :func:`init_process_group` takes any timeout as it is.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterable, Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from hardpoint.bridges.c10d_groups import DEFAULT_TIMEOUT, GroupOptions, Mounted
from hardpoint.bridges.roll_call import check_rank
from hardpoint.errors import (
    ConfigError,
    DuplicateProvider,
    HardpointError,
    ProviderDenied,
    ProviderError,
    ProviderSkipped,
    TransportError,
)
from hardpoint.registry.record import Record
from hardpoint.registry.registry import Registry

PREFIX = "hp_"

_lock = threading.Lock()
_mounted: dict[str, Mounted] = {}


def register(registry: Registry, names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Make transports known to ``torch.distributed`` as ``hp_<name>``; return those names.

    Loads the light plugin modules, for the devices they serve; opens nothing until a group is made.
    Doing it again is fine.

    :param names: transports; default: all that policy permits, where one that cannot be is skipped
        with a warning.
    :raises ProviderError: a named transport cannot be loaded.
    :raises DuplicateProvider: ``torch.distributed`` has another backend of that name.
    """
    if names is not None:
        return tuple(_register(registry, name) for name in names)
    registered = []
    for name in registry.names("transport"):
        try:
            registered.append(_register(registry, name))
        except ProviderDenied:  # the user's own wish: nothing to warn of
            continue
        except ProviderError as error:
            warnings.warn(f"skipped transport:{name}: {error}", ProviderSkipped, stacklevel=2)
    return tuple(registered)


def _register(registry: Registry, name: str) -> str:
    devices = list(registry.info("transport", name).devices)
    record = registry.record("transport", name)
    backend = f"{PREFIX}{name}".lower()  # PyTorch knows lower case only
    with _lock:
        present = _mounted.get(backend)
        if present is None and backend in dist.Backend.backend_list:
            raise _taken(record, backend, "something other than hardpoint registered it")
        if present is None:
            mounted = Mounted(registry, record, backend, devices)
            dist.Backend.register_backend(
                backend, mounted.create, extended_api=True, devices=devices
            )
            _mounted[backend] = mounted
        elif present is not None and (present.registry is not registry or present.name != name):
            if not _same(present.record, record):
                other = f"{present.record.key} ({present.record.origin})"
                raise _taken(record, backend, f"{other} of another registry has it")
            # The same provider, loaded from another registry: that one serves from now on.
            present.registry = registry
    return backend


def _same(one: Record, other: Record) -> bool:
    """Whether two registries mean the same code of the same distribution."""
    return bool(one.dist) and (one.key, one.origin, one.module) == (
        other.key,
        other.origin,
        other.module,
    )


def _taken(record: Record, backend: str, cause: str) -> DuplicateProvider:
    return DuplicateProvider(
        f"torch.distributed already has a backend {backend!r}",
        provider=record.key,
        origin=record.origin,
        cause=cause,
        remedy="PyTorch has one table of backends per process: rename one of the two",
    )


def init_process_group(
    name: str,
    *,
    registry: Registry,
    init_method: str | None = None,
    store: Store | None = None,
    rank: int | None = None,
    world_size: int | None = None,
    timeout: timedelta | None = None,
    config: Mapping[str, object] | None = None,
    device_id: torch.device | None = None,
) -> None:
    """Make transport ``name`` the default process group of ``torch.distributed``.

    :param init_method: how ranks find each other: ``env://`` (the default, as torchrun sets it),
        ``tcp://host:port`` or ``file://path``; or give a ``store``, with ``rank`` and
        ``world_size``.
    :param timeout: limit for joining, and the default limit of every collective; default
        ``DEFAULT_TIMEOUT``, 10 minutes, never PyTorch's 30.
    :param config: the transport's own options.
    :param device_id: the accelerator that this rank is bound to, as in PyTorch.
    :raises TransportError: the group cannot be made, with the reason.
    :raises ConfigError: an option or a timeout that cannot be.
    :raises ProviderError: the transport cannot be loaded or opened.
    """
    timeout = _checked(DEFAULT_TIMEOUT if timeout is None else timeout)
    (backend,) = register(registry, [name])
    mounted = _mounted[backend]
    if dist.is_initialized():
        raise _cannot(
            mounted,
            f"torch.distributed has a default group already ({dist.get_backend()!r})",
            "call torch.distributed.destroy_process_group() first, or make a further group with "
            f"torch.distributed.new_group(backend={backend!r})",
        )
    if store is not None and (rank is None or world_size is None):
        raise _cannot(
            mounted,
            "a store alone does not say who this process is",
            "give rank= and world_size= with it",
        )
    try:
        if rank is not None and world_size is not None:
            check_rank(rank, world_size)
        dist.init_process_group(
            backend,
            init_method=init_method,
            store=store,
            rank=-1 if rank is None else rank,
            world_size=-1 if world_size is None else world_size,
            timeout=timeout,
            pg_options=GroupOptions(dict(config or {}), timeout),
            device_id=device_id,
        )
    except HardpointError as error:
        error.provider = error.provider or mounted.provider
        error.origin = error.origin or mounted.origin
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise _cannot(mounted, cause, _remedy(error, timeout)) from error


def _checked(timeout: object) -> timedelta:
    if not isinstance(timeout, timedelta) or timeout <= timedelta(0):
        raise ConfigError(
            f"timeout={timeout!r} is no limit for a process group",
            remedy="give a positive datetime.timedelta, e.g. timedelta(minutes=10)",
        )
    return timeout


def _remedy(error: Exception, timeout: timedelta) -> str:
    if isinstance(error, dist.DistError):
        return (
            "check that every rank was started, and that all reach the store's host and port "
            f"within the timeout (now {timeout.total_seconds():g} s)"
        )
    return "start with torchrun, or give init_method= or store=, with rank= and world_size="


def _cannot(mounted: Mounted, cause: str, remedy: str) -> TransportError:
    return TransportError(
        f"cannot make {mounted.name!r} the default process group",
        provider=mounted.provider,
        origin=mounted.origin,
        cause=cause,
        remedy=remedy,
    )
