"""The table of one registry: scanned when first asked for, rescanned on demand."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hardpoint.errors import ConfigError, LockMismatch, did_you_mean
from hardpoint.interfaces.kinds import KINDS, Kind
from hardpoint.registry import lock
from hardpoint.registry.discovery import PROVIDER_NAME, scan
from hardpoint.registry.flights import Flights
from hardpoint.registry.mounts import Mounts
from hardpoint.registry.policy import Policy
from hardpoint.registry.record import Record
from hardpoint.registry.reserved import reserved_under
from hardpoint.registry.slots import Slot, build, not_found


class Table:
    """Slots by ``kind:name``, the policy that shaped them, and the pins that they must match.

    :param announce: called after each scan, without the lock, with the records found and the
        policy's entries that name nothing.
    """

    def __init__(
        self,
        policy: Policy,
        path: Sequence[str] | None,
        prefix: str,
        lock_path: Path | None,
        flights: Flights,
        mounts: Mounts,
        announce: Callable[[list[Record], tuple[str, ...]], None],
    ) -> None:
        self._given = policy
        self._path = path
        self._prefix = prefix
        self.reserved = reserved_under(prefix)
        self._lock_path = lock_path
        self._flights = flights
        self._mounts = mounts
        self._announce = announce
        self._slots: dict[str, Slot] | None = None
        self._pins: Mapping[str, lock.Pin] | None = None
        self.policy = policy
        self.problems: tuple[str, ...] = ()

    def discover(self) -> None:
        """Scan, unless that was done."""
        with self._flights.lock:
            if self._slots is not None:
                return
            found, unknown = self._scan()
        self._announce(found, unknown)

    def rescan(self) -> None:
        """Scan again. What was added here, and what is loaded and unchanged, stays."""
        importlib.invalidate_caches()
        with self._flights.lock:
            before = self._slots or {}
            self._pins = None
            found, unknown = self._scan()
            assert self._slots is not None
            for key, slot in before.items():
                if slot.claim is None or _unchanged(slot, self._slots.get(key)):
                    self._slots[key] = slot
                else:
                    self._mounts.unmount(key)
        self._announce(found, unknown)

    def _scan(self) -> tuple[list[Record], tuple[str, ...]]:
        policy = self._given.resolve()
        result = scan(self._path, self._prefix)
        slots, remarks = build(result.claims, policy, self.reserved)
        self.policy, self.problems, self._slots = policy, (*result.problems, *remarks), slots
        dists = {claim.dist for claim in result.claims}
        return [slot.record for slot in slots.values()], policy.unknown(slots, dists, self.reserved)

    def slots(self) -> list[Slot]:
        """All slots, by kind and name."""
        self.discover()
        with self._flights.lock:
            found = list((self._slots or {}).values())
        return sorted(found, key=lambda s: (KINDS.index(s.record.kind), s.record.name))

    def get(self, kind: Kind, name: str) -> Slot:
        """:raises ProviderNotFound: with the nearest name there is."""
        self.discover()
        with self._flights.lock:
            slots = self._slots or {}
            slot = slots.get(f"{kind}:{name}")
            if slot is None:
                raise not_found(kind, name, slots, len(self.problems), self.reserved)
            return slot

    def holds(self, slot: Slot) -> bool:
        """Whether ``slot`` is still in the table; a rescan or removal may have replaced it."""
        with self._flights.lock:
            return (self._slots or {}).get(slot.record.key) is slot

    def find(self, key: str) -> Slot | None:
        """The slot of ``kind:name``, if any."""
        self.discover()
        with self._flights.lock:
            return (self._slots or {}).get(key)

    def put(self, slot: Slot) -> None:
        """Add a slot."""
        self.discover()
        with self._flights.lock:
            assert self._slots is not None
            self._slots[slot.record.key] = slot

    def drop(self, kind: Kind, name: str) -> None:
        """:raises ProviderNotFound: there is nothing to drop."""
        self.discover()
        with self._flights.lock:
            key = self.get(kind, name).record.key
            assert self._slots is not None
            del self._slots[key]
            self._mounts.unmount(key)

    def lock_path(self) -> Path | None:
        """The lock in force: the given one, else the environment's, else none."""
        named = os.environ.get("HARDPOINT_LOCK")
        return self._lock_path or (Path(named) if named else None)

    def pins(self) -> Mapping[str, lock.Pin] | None:
        """What the lock file pins, or ``None`` where no lock is in force.

        :raises ConfigError: it is unusable.
        """
        path = self.lock_path()
        with self._flights.lock:
            if path is not None and self._pins is None:
                self._pins = lock.read(path)
            return self._pins

    def lock_failures(self) -> dict[str, LockMismatch]:
        """What the lock in force refuses, by ``kind:name``; a provider refused anyway is not asked.

        :raises ConfigError: it is unusable.
        """
        pins = self.pins()
        failures: dict[str, LockMismatch] = {}
        for slot in self.slots() if pins is not None else ():
            if slot.claim and pins is not None and slot.record.state == "discovered":
                try:
                    lock.check(slot.claim, pins)
                except LockMismatch as mismatch:
                    failures[slot.record.key] = mismatch
        return failures

    def write_pins(self, path: Path) -> tuple[Record, ...]:
        """Pin every installed provider that policy permits and nothing speaks against."""
        usable = [slot for slot in self.slots() if slot.claim and slot.failure is None]
        lock.write([slot.claim for slot in usable if slot.claim], path)
        return tuple(slot.record for slot in usable)


def _unchanged(before: Slot, now: Slot | None) -> bool:
    """Whether a loaded slot's distribution is the same after a rescan, and still permitted."""
    if now is None or now.failure is not None or before.info is None:
        return False
    old, new = before.claim, now.claim
    assert old is not None, "added slots are kept anyway"
    assert new is not None, "a scan finds claims"
    return (old.origin, old.value) == (new.origin, new.value)


def check_name(kind: str, name: str) -> None:
    """:raises ConfigError: no such kind, or no name that a target could be written with."""
    if kind not in KINDS:
        raise ConfigError(f"{kind!r} is not a kind of provider", remedy=did_you_mean(kind, KINDS))
    if not PROVIDER_NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a provider's name",
            remedy="use letters, digits, '_', '.' and '-', beginning with a letter or digit",
        )
