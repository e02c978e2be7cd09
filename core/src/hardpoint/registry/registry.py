"""The registry: the public face of discovery, policy, loading and dispatch."""

from __future__ import annotations

import copy
import importlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, overload

from hardpoint.errors import (
    ConfigError,
    DuplicateProvider,
    HardpointError,
    PolicyWarning,
    ProviderError,
    ProviderFailed,
    ProviderSkipped,
    did_you_mean,
)
from hardpoint.events import Event
from hardpoint.interfaces.backend import Backend, BackendInfo
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.interfaces.partitioner import Partitioner, PartitionerInfo
from hardpoint.interfaces.probe import Probe, ProbeRequest
from hardpoint.interfaces.serializer import Serializer, SerializerInfo
from hardpoint.interfaces.transport import Transport, TransportInfo
from hardpoint.registry import lock as lockfile
from hardpoint.registry.contracts import Info, Provider
from hardpoint.registry.discovery import PROVIDER_NAME, Scan, scan
from hardpoint.registry.flights import CircularLoad, Flights
from hardpoint.registry.loading import Loader
from hardpoint.registry.mounts import Mounts
from hardpoint.registry.observers import Observers
from hardpoint.registry.policy import Policy
from hardpoint.registry.record import Record
from hardpoint.registry.slots import Slot, build, denied, not_found


@dataclass(frozen=True, slots=True)
class Available:
    """What automatic picking may use.

    :param ready: (name, probe) of every provider that can work here.
    :param skipped: (name, reason) of every other one.
    """

    ready: tuple[tuple[str, Probe], ...]
    skipped: tuple[tuple[str, str], ...]


class Registry:
    """The providers of one host. Thread-safe, aware of forks; as many in a process as you like.

    Nothing is read before the first question, and no plugin imported before it is named.

    :param policy: what may be used; completed by environment and config file.
    :param path: folders whose distributions count (default ``sys.path``). Their modules are
        imported as usual, by ``sys.path``.
    :param group_prefix: the entry point groups are ``<prefix>.<kind>.v1``.
    :param lock: a ``hardpoint.lock`` that every installed provider must match (default: the
        environment's ``HARDPOINT_LOCK``, else none). What :meth:`add` adds is the host's own code
        and not subject to it.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        path: Sequence[str] | None = None,
        group_prefix: str = "hardpoint",
        lock: Path | None = None,
    ) -> None:
        self._given_policy = policy or Policy()
        self._path = path
        self._prefix = group_prefix
        self._lock_path = lock
        self._flights = Flights()
        self._mounts = Mounts()
        self._loader = Loader(self._mounts, self._flights)
        self._observers = Observers(self._mounts, self._flights)
        self._slots: dict[str, Slot] | None = None
        self._policy = self._given_policy
        self._problems: tuple[str, ...] = ()
        self._pins: Mapping[str, lockfile.Pin] | None = None
        self._said: set[str] = set()

    # -- what is there ---------------------------------------------------------------------------

    def records(self, kind: Kind | None = None) -> tuple[Record, ...]:
        """What is known of every provider, sorted. Reads metadata only, imports nothing.

        :raises ConfigError: environment or config file hold an unusable policy.
        """
        self._discover()
        with self._flights.lock:
            found = [slot.record for slot in self._table().values()]
        chosen = [record for record in found if kind in (None, record.kind)]
        return tuple(sorted(chosen, key=lambda r: (KINDS.index(r.kind), r.name)))

    def record(self, kind: Kind, name: str) -> Record:
        """What is known of one provider.

        :raises ProviderNotFound: with the nearest name there is.
        """
        self._discover()
        return self._find(kind, name).record

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Names of all known providers of a kind, whatever their state."""
        return tuple(record.name for record in self.records(kind))

    @property
    def problems(self) -> tuple[str, ...]:
        """What discovery left out, and why: damaged metadata, claims that policy set aside."""
        self._discover()
        return self._problems

    @property
    def policy(self) -> Policy:
        """The policy in force: the given one, completed by environment and config file."""
        self._discover()
        return self._policy

    def reload(self) -> None:
        """Look again: forget cached failures and rescan. What is loaded and unchanged stays."""
        importlib.invalidate_caches()
        with self._flights.lock:
            before = self._slots or {}
            self._pins = None
            found = self._scan()
            for key, slot in before.items():
                if slot.claim is None or _unchanged(slot, self._table().get(key)):
                    self._table()[key] = slot
                else:
                    self._mounts.unmount(key)
        self._announce(found)

    # -- using one -------------------------------------------------------------------------------

    def load(self, kind: Kind, name: str) -> Record:
        """Import a provider's light module, check its hooks, its answer and its version.

        Once: a failure is remembered until :meth:`reload`.

        :raises ProviderError: not found, denied, incompatible, failed, duplicate, or other than
            the lock pins.
        :raises ConfigError: the lock file is unusable.
        """
        self._discover()
        while True:
            with self._flights.lock:
                slot = self._find(kind, name)
                key = slot.record.key
                if key in self._flights.given_up and slot.failure is None:
                    slot.fail(_given_up(slot.record), "failed")
                if slot.failure is not None:
                    raise copy.copy(slot.failure)
                if slot.info is not None:
                    return slot.record
                mine = self._flights.begin(key)
            if not mine:
                self._join(key, slot.claim.module if slot.claim else "", slot.record)
                continue
            try:
                self._load(slot)
            finally:
                self._flights.end(key)

    def _load(self, slot: Slot) -> None:
        try:
            self._loader.load(slot, self._locked())
        except ProviderError as failure:
            self.emit(Event("failed", slot.record.key, {"stage": "load", **failure.to_json()}))
            raise
        with self._flights.lock:
            current = self._table().get(slot.record.key) is slot
            if not current:  # reloaded or removed meanwhile
                self._mounts.unmount(slot.record.key)
        if current:
            self.emit(Event("loaded", slot.record.key, slot.record.to_json()))

    @overload
    def info(self, kind: Literal["serializer"], name: str) -> SerializerInfo: ...
    @overload
    def info(self, kind: Literal["backend"], name: str) -> BackendInfo: ...
    @overload
    def info(self, kind: Literal["partitioner"], name: str) -> PartitionerInfo: ...
    @overload
    def info(self, kind: Literal["transport"], name: str) -> TransportInfo: ...
    @overload
    def info(self, kind: Kind, name: str) -> Info: ...
    def info(self, kind: Kind, name: str) -> Info:
        """What a provider says it is; loads it. Raises as :meth:`load`."""
        self.load(kind, name)
        info = self._find(kind, name).info
        assert info is not None, "load() returned"
        return info

    def probe(self, kind: Kind, name: str, request: ProbeRequest | None = None) -> Probe:
        """Ask a provider, in this process, whether it can work here. Raises as :meth:`load`.

        :raises ProviderFailed: the probe raised: broken, not unavailable.
        :raises ContractViolation: it did not return a ``Probe``.
        """
        wish = request or ProbeRequest()
        return cast(Probe, self._dispatch(kind, name, "probe", request=wish))

    @overload
    def open(
        self, kind: Literal["serializer"], name: str, config: Mapping[str, object] | None = None
    ) -> Serializer: ...
    @overload
    def open(
        self, kind: Literal["backend"], name: str, config: Mapping[str, object] | None = None
    ) -> Backend: ...
    @overload
    def open(
        self, kind: Literal["partitioner"], name: str, config: Mapping[str, object] | None = None
    ) -> Partitioner: ...
    @overload
    def open(
        self, kind: Literal["transport"], name: str, config: Mapping[str, object] | None = None
    ) -> Transport: ...
    @overload
    def open(
        self, kind: Kind, name: str, config: Mapping[str, object] | None = None
    ) -> Provider: ...
    def open(self, kind: Kind, name: str, config: Mapping[str, object] | None = None) -> Provider:
        """Open a provider: from here on it imports what is heavy. Raises as :meth:`load`.

        :raises ProviderFailed: it raised something that is no ``HardpointError``.
        :raises ContractViolation: it returned something of another type.
        """
        return cast(Provider, self._dispatch(kind, name, "open", config=dict(config or {})))

    def _dispatch(self, kind: Kind, name: str, stage: str, **arguments: object) -> object:
        record = self.load(kind, name)
        what = f"{record.key} could not be {'opened' if stage == 'open' else 'probed'}"
        try:
            return self._loader.call(record, stage, what, **arguments)
        except HardpointError as failure:
            self.emit(Event("failed", record.key, {"stage": stage, **failure.to_json()}))
            raise

    def available(self, kind: Kind) -> Available:
        """Load and probe every provider that policy permits, for automatic picks.

        A broken one is skipped with one :class:`ProviderSkipped` warning in the registry's life;
        one that is denied or merely unavailable is skipped without.
        """
        ready: list[tuple[str, Probe]] = []
        skipped: list[tuple[str, str]] = []
        for record in self.records(kind):
            if record.state == "denied":
                skipped.append((record.name, record.error))
                continue
            try:
                probe = self.probe(kind, record.name)
            except HardpointError as error:
                skipped.append((record.name, str(error)))
                with self._flights.lock:
                    first = record.key not in self._said
                    self._said.add(record.key)
                if first:
                    warnings.warn(f"skipped {record.key}: {error}", ProviderSkipped, stacklevel=2)
            else:
                if probe.available:
                    ready.append((record.name, probe))
                else:
                    skipped.append((record.name, f"unavailable: {probe.reason}"))
        return Available(tuple(ready), tuple(skipped))

    # -- adding, removing, watching --------------------------------------------------------------

    def add(self, kind: Kind, name: str, module_or_object: object) -> Record:
        """Add a provider that no distribution declares: for notebooks and tests.

        Checked at once like a loaded one; if it fails, nothing is added.

        :raises DuplicateProvider: the name is taken.
        :raises ProviderDenied: by policy, or the name is reserved and not overridden.
        :raises ProviderError: its hooks, its answer or its version do not fit.
        """
        _check_name(kind, name)
        self._discover()
        slot = Slot(Record(kind, name, "discovered", file=_file_of(module_or_object)))
        record = slot.record
        cause, remedy = self._policy.objection(kind, name, "")
        if cause:
            raise denied(record.key, record.origin, cause, remedy)
        while not self._flights.begin(record.key):
            self._join(record.key, "", record)
        try:
            with self._flights.lock:
                taken = self._table().get(record.key)
            if taken is not None:
                raise _taken(taken.record)
            self._loader.mount(slot, module_or_object)
            with self._flights.lock:
                self._table()[record.key] = slot
        finally:
            self._flights.end(record.key)
        self.emit(Event("loaded", record.key, slot.record.to_json()))
        return slot.record

    def remove(self, kind: Kind, name: str) -> None:
        """Forget a provider: an added one for good, an installed one until :meth:`reload`.

        :raises ProviderNotFound: there is none.
        """
        self._discover()
        with self._flights.lock:
            key = self._find(kind, name).record.key
            del self._table()[key]
            self._mounts.unmount(key)

    def observe(self, observer: object | Callable[[Event], None]) -> Callable[[], None]:
        """Call ``observer`` (a function, or an object with ``hardpoint_event``) with every event.

        :returns: a function that ends it.
        :raises ConfigError: it cannot observe.
        """
        return self._observers.observe(observer)

    def wrap(self, plugin: object) -> Callable[[], None]:
        """Put an embedder's hook wrappers around every ``info``, ``probe`` and ``open``.

        :returns: a function that takes them off.
        :raises ConfigError: it holds no wrapper, or a hook that is none.
        """
        return self._observers.wrap(plugin)

    def emit(self, event: Event) -> None:
        """Tell the observers; never raises what they raise."""
        self._observers.emit(event)

    def write_lock(self, path: Path) -> tuple[Record, ...]:
        """Pin every usable installed provider in ``path``; return their records.

        :raises ConfigError: one cannot be pinned, or the file cannot be written.
        """
        self._discover()
        with self._flights.lock:
            usable = [s for s in self._table().values() if s.claim and s.record.state != "denied"]
            usable = [s for s in usable if s.failure is None]
        lockfile.write([slot.claim for slot in usable if slot.claim], path)
        return tuple(slot.record for slot in usable)
