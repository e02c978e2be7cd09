"""Telling observers what happens, without letting one of them stop the work."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hardpoint.errors import ConfigError, HardpointWarning
from hardpoint.events import Event
from hardpoint.registry.causes import in_words
from hardpoint.registry.flights import Flights
from hardpoint.registry.mounts import HookProblem, Mounts
from hardpoint.registry.warn import warn_caller


class Observers:
    """Who watches one registry, and who wraps its dispatch."""

    def __init__(self, mounts: Mounts, flights: Flights) -> None:
        self._mounts = mounts
        self._flights = flights
        self._numbers = itertools.count(1)
        self._observing: tuple[str, ...] = ()
        self._warned: set[str] = set()

    def observe(self, observer: object) -> Callable[[], None]:
        """Mount an observer; the returned function takes it off again.

        :raises ConfigError: it cannot observe.
        """
        key = f"observer {next(self._numbers)}"
        with self._flights.lock:
            try:
                self._mounts.mount_observer(key, observer)
            except HookProblem as problem:
                raise _unfit("observe", observer, problem) from problem
            self._observing = (*self._observing, key)

        def unsubscribe() -> None:
            with self._flights.lock:
                self._observing = tuple(other for other in self._observing if other != key)
                self._mounts.unmount(key)

        return unsubscribe

    def wrap(self, plugin: object) -> Callable[[], None]:
        """Mount hook wrappers; the returned function takes them off again.

        :raises ConfigError: it holds none, or hooks that are not wrappers.
        """
        key = f"wrapper {next(self._numbers)}"
        with self._flights.lock:
            try:
                self._mounts.mount_wrappers(key, plugin)
            except HookProblem as problem:
                raise _unfit("wrap", plugin, problem) from problem

        def unwrap() -> None:
            with self._flights.lock:
                self._mounts.unmount(key)

        return unwrap

    def emit(self, event: Event) -> None:
        """Tell every observer. One that raises gets a warning the first time, and is called on."""
        for key in self._observing:
            with self._flights.lock:
                if key not in self._observing:
                    continue
                call = self._mounts.caller(key, "hardpoint_event")
            try:
                call(event=event)
            except (Exception, SystemExit) as error:
                with self._flights.lock:
                    first = key not in self._warned
                    self._warned.add(key)
                if first:
                    warn_caller(
                        f"an observer raised on {event.kind!r} of {event.provider or 'the host'} "
                        f"and was ignored (said once): {in_words(error)}",
                        HardpointWarning,
                    )


def _unfit(verb: str, plugin: object, problem: HookProblem) -> ConfigError:
    return ConfigError(
        f"{plugin!r} cannot {verb}",
        cause=str(problem),
        remedy="give observe() a function of one event, or an object with the hook "
        "hardpoint_event(event)"
        if verb == "observe"
        else "give wrap() an object whose hooks are marked @hardpoint.hookimpl(wrapper=True)",
    )
