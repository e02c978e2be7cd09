"""Making a discovered provider a loaded one: one light import, hooks, info, version."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from hardpoint.errors import LockMismatch, ProviderError, ProviderFailed, ProviderIncompatible
from hardpoint.registry import lock
from hardpoint.registry.causes import isolated
from hardpoint.registry.contracts import check_result, hook_name
from hardpoint.registry.flights import Flights
from hardpoint.registry.mounts import HookProblem, Mounts
from hardpoint.registry.record import Record, State
from hardpoint.registry.slots import Slot, incompatible
from hardpoint.registry.version import objection_to


class Loader:
    """Loads and calls the providers of one registry. Runs their code without holding its lock."""

    def __init__(self, mounts: Mounts, flights: Flights) -> None:
        self._mounts = mounts
        self._flights = flights

    def load(self, slot: Slot, pins: Mapping[str, lock.Pin] | None) -> None:
        """Import and mount what ``slot`` claims; record the outcome in it, good or bad.

        :param pins: refuse what differs from these; ``None`` where no lock is in force.
        :raises ProviderError: it failed; nothing of it stays mounted.
        """
        try:
            plugin = self._import(slot, pins)
            self.mount(slot, plugin)
        except ProviderError as failure:
            with self._flights.lock:
                slot.fail(failure, _state_after(failure))
            raise

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

    def mount(self, slot: Slot, plugin: object) -> None:
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
            info = self.call(slot.record, "info", what, own_words=False)
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

    def call(
        self, record: Record, stage: str, what: str, *, own_words: bool = True, **arguments: object
    ) -> Any:
        """Call one hook of one provider, and check the type of its answer.

        :raises ProviderFailed: it raised.
        :raises ContractViolation: it returned something of another type.
        """
        with self._flights.lock:
            call = self._mounts.caller(record.key, hook_name(record.kind, stage))
        with isolated(what, record, own_words=own_words):
            result = call(**arguments)
        check_result(record, stage, result)
        return result


def _state_after(failure: ProviderError) -> State:
    if isinstance(failure, ProviderIncompatible):
        return "incompatible"
    # The lock forbids, as policy does; nothing was imported.
    return "denied" if isinstance(failure, LockMismatch) else "failed"
