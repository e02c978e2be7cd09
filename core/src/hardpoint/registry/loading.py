"""Making a discovered provider a loaded one: one light import, hooks, info, version."""

from __future__ import annotations

import copy
import importlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from hardpoint.errors import (
    HardpointError,
    LockMismatch,
    ProviderError,
    ProviderFailed,
    ProviderIncompatible,
)
from hardpoint.events import Event
from hardpoint.interfaces.kinds import Kind
from hardpoint.registry import lock
from hardpoint.registry.causes import isolated
from hardpoint.registry.contracts import check_result, hook_name
from hardpoint.registry.flights import CircularLoad, Flights
from hardpoint.registry.mounts import HookProblem, Mounts
from hardpoint.registry.record import Record, State
from hardpoint.registry.slots import Slot, circular, given_up, incompatible, taken
from hardpoint.registry.table import Table
from hardpoint.registry.version import objection_to


class Loader:
    """Loads and calls the providers of one registry. Runs their code without holding its lock."""

    def __init__(
        self, table: Table, mounts: Mounts, flights: Flights, emit: Callable[[Event], None]
    ) -> None:
        self._table = table
        self._mounts = mounts
        self._flights = flights
        self._emit = emit

    def loaded(self, kind: Kind, name: str) -> Slot:
        """The provider's slot, after loading it if that was not done. Raises as ``load``."""
        while True:
            slot = self._table.get(kind, name)
            if slot.info is not None:
                return slot
            key = slot.record.key
            with self._flights.lock:
                if key in self._flights.given_up and slot.failure is None:
                    slot.fail(given_up(slot.record), "failed")
                if slot.failure is not None:
                    raise copy.copy(slot.failure)
                mine = slot.info is None and self._flights.begin(key)
            if mine:
                try:
                    self._load(slot)
                finally:
                    self._flights.end(key)
            else:
                self._join(slot)

    def _load(self, slot: Slot) -> None:
        """Import and mount what ``slot`` claims; record the outcome in it, good or bad."""
        key, pins = slot.record.key, self._table.pins()
        start = time.perf_counter()
        try:
            self._mount(slot, self._import(slot, pins))
        except ProviderError as failure:
            with self._flights.lock:
                slot.fail(failure, _state_after(failure))
            self._emit_failure(key, "load", start, failure)
            raise
        with self._flights.lock:
            if not self._table.holds(slot):  # reloaded or removed meanwhile
                self._mounts.unmount(key)
                return
        self._emit_loaded(slot.record, start)

    def _join(self, slot: Slot) -> None:
        """Wait for the thread that loads this provider."""
        try:
            self._flights.join(slot.record.key, slot.claim.module if slot.claim else "")
        except CircularLoad:
            raise circular(slot.record) from None

    def add(self, slot: Slot, plugin: object) -> None:
        """Mount ``plugin`` and put ``slot`` in the table, if its name is free.

        :raises DuplicateProvider: it is not.
        :raises ProviderError: hooks, answer or version do not fit; nothing was added.
        """
        key = slot.record.key
        while not self._flights.begin(key):
            self._join(slot)
        start = time.perf_counter()
        try:
            there = self._table.find(key)
            if there is not None:
                raise taken(there.record)
            self._mount(slot, plugin)
            self._table.put(slot)
        finally:
            self._flights.end(key)
        self._emit_loaded(slot.record, start)

    def _emit_loaded(self, record: Record, start: float) -> None:
        seconds = time.perf_counter() - start
        self._emit(Event("loaded", record.key, {**record.to_json(), "seconds": seconds}))

    def _emit_failure(self, key: str, stage: str, start: float, failure: HardpointError) -> None:
        facts = {"stage": stage, "seconds": time.perf_counter() - start, **failure.to_json()}
        self._emit(Event("failed", key, facts))

    def _import(self, slot: Slot, pins: Mapping[str, lock.Pin] | None) -> object:
        claim = slot.claim
        assert claim is not None, "what this process added is mounted already"
        if pins is not None:
            lock.check(claim, pins)
        with isolated(f"{claim.key} could not be loaded", slot.record, own_words=False):
            start = time.perf_counter()
            module = importlib.import_module(claim.module)
            plugin: object = module
            if claim.attr:
                plugin = reduce(getattr, claim.attr.split("."), plugin)
            took = round((time.perf_counter() - start) * 1e3, 3)
            slot.record = replace(slot.record, file=module.__file__ or "", import_ms=took)
            return plugin

    def _mount(self, slot: Slot, plugin: object) -> None:
        """Mount ``plugin`` and ask who it is.

        :raises ProviderError: its hooks, its answer or its version do not fit; it is not mounted.
        """
        key = slot.record.key
        what = f"{key} could not be loaded"
        try:
            with isolated(what, slot.record, own_words=False), self._flights.lock:
                problem = self._try_mount(slot, plugin)
            if problem:
                raise ProviderFailed(
                    what,
                    provider=key,
                    origin=slot.record.origin,
                    cause=problem,
                    remedy=f"its authors: implement the hooks of hardpoint.hookspecs, "
                    f"{hook_name(slot.record.kind, '*')}",
                )
            info = self._call(slot.record, "info", what, {}, own_words=False)
            cause, remedy = objection_to(info.requires_api)
            if cause:
                raise incompatible(slot, cause, remedy)
        except BaseException:
            with self._flights.lock:
                self._mounts.unmount(key)
            raise
        with self._flights.lock:
            slot.info = info
            slot.record = replace(slot.record, state="loaded", requires_api=info.requires_api)

    def _try_mount(self, slot: Slot, plugin: object) -> str:
        """What is wrong with the hooks, or ``""``."""
        try:
            self._mounts.mount_provider(slot.record.key, slot.record.kind, plugin)
        except HookProblem as problem:
            return str(problem)
        return ""

    def dispatch(
        self, kind: Kind, name: str, stage: str, arguments: Mapping[str, object]
    ) -> object:
        """Load the provider and call one of its hooks.

        :raises HardpointError: it failed; observers are told.
        """
        record = self.loaded(kind, name).record
        what = f"{record.key} could not be {'opened' if stage == 'open' else 'probed'}"
        start = time.perf_counter()
        try:
            return self._call(record, stage, what, arguments, own_words=True)
        except HardpointError as failure:
            self._emit_failure(record.key, stage, start, failure)
            raise

    def _call(
        self,
        record: Record,
        stage: str,
        what: str,
        arguments: Mapping[str, object],
        *,
        own_words: bool,
    ) -> Any:
        """Call one hook of one provider, and check the type of its answer.

        :raises ProviderFailed: it raised.
        :raises ContractViolation: it returned something of another type.
        """
        with self._flights.lock:
            call = self._mounts.caller(record.key, hook_name(record.kind, stage))
        with isolated(what, record, own_words=own_words):
            result = call(provider=record.name, **arguments)
        check_result(record, stage, result)
        return result


def _state_after(failure: ProviderError) -> State:
    if isinstance(failure, ProviderIncompatible):
        return "incompatible"
    # The lock forbids, as policy does; nothing was imported.
    return "denied" if isinstance(failure, LockMismatch) else "failed"
