"""Calls that run on some processors only, while their caller runs where it likes.

Linux binds threads, not only processes, and what a bound thread starts is bound as it is, so that
OpenMP's threads are, too. So calls are made by a thread of the executable's own. Memory that is
touched first by such a thread comes from its node, unless that has none left (Linux, "NUMA Memory
Policy": local allocation).
"""

from __future__ import annotations

import contextvars
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from hardpoint import Executable, ProviderFailed
from hardpoint_cpu.origin import ORIGIN, PROVIDER

Result = TypeVar("Result")


class Worker:
    """One thread that is bound to processors, for calls that take turns."""

    def __init__(self, name: str, processors: frozenset[int]) -> None:
        self._name, self._processors = name, processors
        self._closed = False
        self.begin()
        _workers.add(self)

    def begin(self) -> None:
        """Get a thread, which the first call starts. Again in a forked child, which has none."""
        self._thread = ThreadPoolExecutor(1, self._name)
        self._bound: int | None = None  # the thread's number, once it is bound
        if self._closed:
            self._thread.shutdown()

    def call(self, function: Callable[..., Result], *given: object) -> Result:
        """What ``function`` gives there, in the caller's context and modes of recording.

        :raises ProviderFailed: it was closed, or the system does not bind its thread.
        """
        if threading.get_ident() == self._bound:  # a call from inside of a call
            return function(*given)
        # PyTorch keeps these two for each thread.
        recording, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

        def there() -> Result:
            self._bind()
            with torch.inference_mode(inference), torch.set_grad_enabled(recording):
                return function(*given)

        try:
            running = self._thread.submit(contextvars.copy_context().run, there)
        except RuntimeError as error:
            if not self._closed:
                raise
            raise _failed(
                "the executable was closed", "its thread has ended", "load the artifact again"
            ) from error
        return running.result()

    def _bind(self) -> None:
        if self._bound is not None:
            return
        try:
            os.sched_setaffinity(0, self._processors)
        except OSError as error:
            raise _failed(
                f"{self._name}: its thread cannot be bound to {sorted(self._processors)}",
                f"{type(error).__name__}: {error}",
                "allow this process these processors, or compile without the option numa",
            ) from error
        self._bound = threading.get_ident()

    def close(self) -> None:
        """End the thread, after the calls that came before."""
        self._closed = True
        self._thread.shutdown(wait=threading.get_ident() != self._bound)


def _failed(what: str, cause: str, remedy: str) -> ProviderFailed:
    return ProviderFailed(what, provider=PROVIDER, origin=ORIGIN, cause=cause, remedy=remedy)


_workers: weakref.WeakSet[Worker] = weakref.WeakSet()


def _begin_again() -> None:
    """In a forked child: threads do not come through, and neither does who waits for them."""
    for worker in _workers:
        worker.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)


class OnNode(Executable):
    """An executable that is opened and called on a node's processors.

    :param opened: gives the executable.
    """

    def __init__(
        self, opened: Callable[[], Executable], node: int, processors: frozenset[int]
    ) -> None:
        self._node, self._processors = node, processors
        self._worker = Worker(f"hardpoint-cpu on node {node}", processors)
        try:
            self._inner = self._worker.call(opened)
        except BaseException:
            self._worker.close()
            raise

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run, on the node."""
        return self._worker.call(self._inner, *inputs)

    def facts(self) -> Mapping[str, object]:
        """The inner one's, with the node and its processors."""
        found = self._worker.call(self._inner.facts)
        return {**found, "numa": self._node, "processors": sorted(self._processors)}

    def close(self) -> None:
        """Let go of the thread, and then of what the inner one holds."""
        self._worker.close()
        self._inner.close()
