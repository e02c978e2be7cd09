"""Loads in flight: one thread loads a provider, others wait for it; no dead-lock, also over fork.

The lock guards the registry's tables for moments only and is never held while a plugin's code
runs, so that a slow import blocks nobody who asks for something else. Three ways to dead-lock
remain, and each has its answer:

- threads that wait for each other's loads: the circle is found before waiting;
- a thread that waits while it holds Python's import locks: it first joins the import itself, where
  Python finds such circles;
- a fork while another thread imports: the child would inherit locks that nobody lets go. The fork
  waits for running loads (they are short by contract); one that takes too long is given up *in the
  child*, with an error that says so.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
import weakref
from contextlib import suppress

FORK_PATIENCE_S = 10.0


class CircularLoad(Exception):  # noqa: N818  # an inner signal, turned into ProviderFailed
    """Waiting for this load would never end."""


class Flights:
    """The lock of one registry, and which thread loads what."""

    def __init__(self) -> None:
        self.given_up: frozenset[str] = frozenset()
        self._loading: dict[str, int] = {}
        self._waiting: dict[int, str] = {}
        self._new_locks()
        _ALL.add(self)

    def _new_locks(self) -> None:
        self.lock = threading.RLock()
        self._landed = threading.Condition(self.lock)

    def begin(self, key: str) -> bool:
        """Whether the calling thread now loads ``key``; if not, another does: :meth:`join` it."""
        with self.lock:
            if key in self._loading:
                return False
            self._loading[key] = threading.get_ident()
            return True

    def end(self, key: str) -> None:
        """The load is over, well or not."""
        with self.lock:
            del self._loading[key]
            self._landed.notify_all()

    def join(self, key: str, module: str) -> None:
        """Wait until nobody loads ``key`` any more.

        :param module: what is being imported, ``""`` if unknown.
        :raises CircularLoad: that would never happen.
        """
        me = threading.get_ident()
        if module and self._loading.get(key) != me and _inside_import():
            _join_import(module)
        with self.lock:
            while key in self._loading:
                if self._leads_to(me, key):
                    raise CircularLoad
                self._waiting[me] = key
                try:
                    self._landed.wait()
                finally:
                    del self._waiting[me]

    def _leads_to(self, me: int, key: str) -> bool:
        """Whether the thread that loads ``key`` is, or waits (through others) for, ``me``."""
        at: str | None = key
        while at is not None and at in self._loading:
            owner = self._loading[at]
            if owner == me:
                return True
            at = self._waiting.get(owner)
        return False

    def await_others(self, patience: float) -> None:
        """Wait, no longer than ``patience`` seconds, until no other thread loads anything."""
        me = threading.get_ident()
        with self.lock:
            self._landed.wait_for(
                lambda: all(owner == me for owner in self._loading.values()), patience
            )

    def wake_in_child(self) -> None:
        """After fork, in the child: its one thread is the caller."""
        me = threading.get_ident()
        gone = {key for key, owner in self._loading.items() if owner != me}
        self.given_up |= gone
        self._loading = {key: me for key in self._loading if key not in gone}
        self._waiting.clear()
        self._new_locks()


def _inside_import() -> bool:
    """Whether the calling thread is executing a module's body."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
    return False


def _join_import(module: str) -> None:
    """Let Python's import system wait for ``module``: it knows the import locks that we hold.

    Should the other thread's import fail meanwhile, Python tries once more, here.

    :raises CircularLoad: the import waits for us; Python then hands out a half-made module.
    """
    # What the import raises is for the thread that loads the provider to report.
    with suppress(Exception, SystemExit):
        importlib.import_module(module)
    if getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False):
        raise CircularLoad


_ALL: weakref.WeakSet[Flights] = weakref.WeakSet()
_FORK = threading.Lock()
_HELD: list[Flights] = []


def _before_fork() -> None:
    for flights in list(_ALL):
        flights.await_others(FORK_PATIENCE_S)
    _FORK.acquire()
    for flights in list(_ALL):
        flights.lock.acquire()
        _HELD.append(flights)


def _after_fork_in_parent() -> None:
    while _HELD:
        _HELD.pop().lock.release()
    _FORK.release()


def _after_fork_in_child() -> None:
    while _HELD:
        _HELD.pop().wake_in_child()
    _FORK.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
