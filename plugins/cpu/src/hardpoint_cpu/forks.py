"""Calls that go on in a forked child.

The pool of threads that OpenMP made for a thread does not survive ``fork``, and its next parallel
region waits for it forever: PyTorch's own operators hang so. A new thread gets a new pool. So in a
child, calls from the thread that was forked are made on another one, which changes nothing else.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass
class _State:
    """Of this process.

    :param forked: the one thread that came through a fork; ``None`` where none did.
    :param worker: what computes in its place.
    """

    forked: int | None = None
    worker: ThreadPoolExecutor | None = None


state = _State()


def _mark() -> None:
    state.forked, state.worker = threading.get_ident(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_mark)


def here() -> bool:
    """Whether this thread came through a fork, so that its pool is gone."""
    return state.forked is not None and state.forked == threading.get_ident()


def elsewhere(call: Callable[..., Result], inputs: Sequence[object]) -> Result:
    """What ``call`` gives for the inputs, from a thread that can compute."""
    if state.worker is None:
        state.worker = ThreadPoolExecutor(1, thread_name_prefix="hardpoint-cpu after fork")
    context = contextvars.copy_context()
    return state.worker.submit(context.run, call, *inputs).result()
