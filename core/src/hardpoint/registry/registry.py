"""The registry: the public face of discovery, policy, loading and dispatch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, overload

from hardpoint.errors import HardpointError, LockMismatch, PolicyWarning, ProviderSkipped
from hardpoint.events import Event
from hardpoint.interfaces.kinds import Kind
from hardpoint.interfaces.probe import Probe, ProbeRequest
from hardpoint.registry.contracts import Info, Provider
from hardpoint.registry.flights import Flights
from hardpoint.registry.loading import Loader
from hardpoint.registry.mounts import Mounts
from hardpoint.registry.observers import Observers
from hardpoint.registry.policy import Policy
from hardpoint.registry.record import Record
from hardpoint.registry.slots import Slot, denied
from hardpoint.registry.table import Table, check_name
from hardpoint.registry.warn import warn_caller

if TYPE_CHECKING:
    from hardpoint.interfaces.backend import Backend, BackendInfo
    from hardpoint.interfaces.partitioner import Partitioner, PartitionerInfo
    from hardpoint.interfaces.serializer import Serializer, SerializerInfo
    from hardpoint.interfaces.transport import Transport, TransportInfo

Config = Mapping[str, object]


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
    :param group_prefix: the entry point groups are ``<prefix>.<kind>.v1``. First-party names are
        reserved in our own groups only: under a prefix of yours they are free.
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
        self._flights = flights = Flights()
        mounts = Mounts()
        self._observers = Observers(mounts, flights)
        self._table = Table(
            policy or Policy(), path, group_prefix, lock, flights, mounts, self._announce
        )
        self._loader = Loader(self._table, mounts, flights, self.emit)
        self._said: set[str] = set()
        self._configs: dict[str, Config] = {}

    def _announce(self, found: list[Record], unknown: tuple[str, ...]) -> None:
        for sentence in unknown:
            warn_caller(sentence, PolicyWarning)
        for record in found:
            self.emit(Event("discovered", record.key, record.to_json()))

    def records(self, kind: Kind | None = None) -> tuple[Record, ...]:
        """What is known of every provider, sorted. Reads metadata only, imports nothing.

        :raises ConfigError: environment or config file hold an unusable policy.
        """
        found = (slot.record for slot in self._table.slots())
        return tuple(record for record in found if kind in (None, record.kind))

    def record(self, kind: Kind, name: str) -> Record:
        """What is known of one provider.

        :raises ProviderNotFound: with the nearest name there is.
        """
        return self._table.get(kind, name).record

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Names of all known providers of a kind, whatever their state."""
        return tuple(record.name for record in self.records(kind))

    @property
    def problems(self) -> tuple[str, ...]:
        """What discovery left out, and why: damaged metadata, claims that policy set aside."""
        self._table.discover()
        return self._table.problems

    @property
    def policy(self) -> Policy:
        """The policy in force: the given one, completed by environment and config file."""
        self._table.discover()
        return self._table.policy

    @property
    def lock(self) -> Path | None:
        """The lock file in force: the given one, else the environment's; ``None``: no lock."""
        return self._table.lock_path()

    def reload(self) -> None:
        """Look again: forget cached failures and rescan. What is loaded and unchanged stays."""
        self._table.rescan()

    def load(self, kind: Kind, name: str) -> Record:
        """Import a provider's light module; check its hooks, its answer and its version.

        Once: a failure is remembered until :meth:`reload`.

        :raises ProviderError: not found, denied, incompatible, failed, duplicate, or other than
            the lock pins.
        :raises ConfigError: the lock file is unusable.
        """
        return self._loader.loaded(kind, name).record

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
        return cast(Info, self._loader.loaded(kind, name).info)

    def probe(self, kind: Kind, name: str, request: ProbeRequest | None = None) -> Probe:
        """Ask a provider, in this process, whether it can work here. Raises as :meth:`load`.

        :raises ProviderFailed: the probe raised: broken, not unavailable.
        :raises ContractViolation: it did not return a ``Probe``.
        """
        arguments = {"request": request or ProbeRequest()}
        return cast(Probe, self._loader.dispatch(kind, name, "probe", arguments))

    @overload
    def open(
        self, kind: Literal["serializer"], name: str, config: Config | None = None
    ) -> Serializer: ...
    @overload
    def open(
        self, kind: Literal["backend"], name: str, config: Config | None = None
    ) -> Backend: ...
    @overload
    def open(
        self, kind: Literal["partitioner"], name: str, config: Config | None = None
    ) -> Partitioner: ...
    @overload
    def open(
        self, kind: Literal["transport"], name: str, config: Config | None = None
    ) -> Transport: ...
    @overload
    def open(self, kind: Kind, name: str, config: Config | None = None) -> Provider: ...
    def open(self, kind: Kind, name: str, config: Config | None = None) -> Provider:
        """Open a provider: only now it imports what is heavy. Raises as :meth:`load`.

        :param config: its options; by default those that :meth:`configure` was given.

        :raises ProviderFailed: it raised something that is no ``HardpointError``.
        :raises ContractViolation: it returned something of another type.
        """
        chosen = self.configuration(kind, name) if config is None else config
        arguments = {"config": dict(chosen)}
        return cast(Provider, self._loader.dispatch(kind, name, "open", arguments))

    def configure(self, kind: Kind, name: str, config: Config) -> None:
        """Set what :meth:`open` hands a provider by default, also when planning or compiling.

        :raises ProviderNotFound: with the nearest name there is.
        """
        self._configs[self.record(kind, name).key] = dict(config)

    def configuration(self, kind: Kind, name: str) -> Config:
        """What :meth:`configure` was given for a provider; empty where nothing was."""
        return self._configs.get(f"{kind}:{name}", {})

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
                    warn_caller(f"skipped {record.key}: {error}", ProviderSkipped)
                continue
            if probe.available:
                ready.append((record.name, probe))
            else:
                skipped.append((record.name, f"unavailable: {probe.reason}"))
        return Available(tuple(ready), tuple(skipped))

    def add(self, kind: Kind, name: str, module_or_object: object) -> Record:
        """Add a provider that no distribution declares: for notebooks and tests.

        Checked at once, as a loaded one is; if it fails, nothing is added.

        :raises DuplicateProvider: the name is taken.
        :raises ProviderDenied: by policy, or the name is reserved and not overridden.
        :raises ProviderError: its hooks, its answer or its version do not fit.
        """
        check_name(kind, name)
        cause, remedy = self.policy.objection(kind, name, "", self._table.reserved)
        file = str(getattr(module_or_object, "__file__", None) or "")
        slot = Slot(Record(kind, name, "discovered", file=file))
        if cause:
            raise denied(slot.record.key, slot.record.origin, cause, remedy)
        self._loader.add(slot, module_or_object)
        return slot.record

    def remove(self, kind: Kind, name: str) -> None:
        """Forget a provider: an added one for good, an installed one until :meth:`reload`.

        :raises ProviderNotFound: there is none.
        """
        self._table.drop(kind, name)

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

    def lock_failures(self) -> dict[str, LockMismatch]:
        """``kind:name`` of each provider that the lock in force refuses, and why; imports none.

        :raises ConfigError: the lock file is unusable.
        """
        return self._table.lock_failures()

    def write_lock(self, path: Path) -> tuple[Record, ...]:
        """Pin every usable installed provider in ``path``; return their records.

        :raises ConfigError: one cannot be pinned, or the file cannot be written.
        """
        return self._table.write_pins(path)


_DEFAULT = Registry()


def default_registry() -> Registry:
    """The process-wide registry: a convenience for scripts and the command line."""
    return _DEFAULT
